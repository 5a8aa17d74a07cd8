//! PURE: a session on its way to the connection that resumes it (XEP-0198 §5), on this node or on another.

use althing_cluster::node_id::NodeId;
use althing_cluster::routes::BindIndex;
use althing_cluster::wire::{self, WireError};
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::management::{Count, TooHigh};
use althing_proto::time::Timestamp;
use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::outbox::Left;

/// How a stream is resumed: what the client shows for it, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The hash of the SM-ID: the SM-ID itself is the client's alone.
    pub hash: [u8; 32],
    /// Seconds without a connection after which the session ends.
    pub seconds: u64,
}

/// What a client shows that resumes a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The hash of the SM-ID.
    pub hash: [u8; 32],
    /// The last stanza of the server that it has handled.
    pub handled: Count,
}

/// Why a session is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHanded {
    /// There is none that the claim is for.
    Unknown,
    /// It is on its way to somebody else who claims it.
    Moving,
    /// Not now.
    Unavailable,
    /// The client acknowledges what it was never sent.
    TooHigh(TooHigh),
}

/// The SM-ID of a stream: random octets, and the resource, which finds the session of an account.
#[must_use]
pub fn sm_id(random: [u8; 16], jid: &FullJid) -> String {
    let mut octets = random.to_vec();
    octets.extend_from_slice(jid.resource().as_str().as_bytes());
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, octets)
}

/// The session of `user` that an SM-ID is about, if it can be one of ours.
#[must_use]
pub fn session_of(sm_id: &str, user: &BareJid) -> Option<FullJid> {
    let octets = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, sm_id).ok()?;
    let resource = std::str::from_utf8(octets.get(16..)?).ok()?;
    user.with_resource_str(resource).ok()
}

/// The hash by which an SM-ID is known.
#[must_use]
pub fn hash(sm_id: &str, jid: &FullJid) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(sm_id.as_bytes());
    context.update(&[0]);
    context.update(jid.as_str().as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What a session keeps over a resumption beside its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The presence that others have, as XML that stands on its own.
    pub presence: Option<Bytes>,
    /// The presence that the client has broadcast.
    pub said: Option<Bytes>,
    /// Whom directed presence has told.
    pub directed: Vec<Jid>,
    /// The version of the roster that the client has, if it has asked for one.
    pub roster: Option<u64>,
    /// Whether contacts may hold a lost predecessor for available.
    pub took_over: bool,
    /// The privacy list that applies instead of the default.
    pub active_list: Option<u32>,
    /// Whether the client is told of changes of the block list.
    pub asked_for_blocks: bool,
    /// Set while the session hides from all; whether it asks for presence then (XEP-0186).
    pub invisible: Option<bool>,
    /// Whose presence the client has seen: hashes of that node.
    pub seen: Vec<u64>,
    /// Whether the client wants copies of what its other resources send and get (XEP-0280).
    pub carbons: bool,
    /// Messages that have arrived and that the store does not know yet.
    pub arrived: Vec<StanzaId>,
    /// Whether the client fetches what waits by itself (XEP-0013).
    pub fetches: bool,
    /// Whether the client gives a receipt for each message.
    pub receipts: bool,
    /// The last messages that it has got: each may come once more, by another way.
    pub recent: Vec<StanzaId>,
}

/// A stanza that is to be sent, perhaps once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Unsent {
    bytes: Bytes,
    elsewhere: Option<Timestamp>,
    known: Option<StanzaId>,
    waited: Option<StanzaId>,
}

/// A whole session. It is the owner's that the route table names already. Fields never change: what must becomes another
/// type under a task of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// The bind that the session has from now on.
    pub index: BindIndex,
    /// Where it comes from.
    pub from: NodeId,
    /// When it began.
    pub since: Timestamp,
    hash: [u8; 32],
    seconds: u64,
    /// The last stanza of the client that is safe: the client sends again what came later.
    pub handled: Count,
    /// The last stanza of the server that the client has handled.
    pub acknowledged: Count,
    unsent: Vec<Unsent>,
    /// How many of them the client was sent and may have: told beside it, where its connection is not there yet that says.
    #[serde(skip)]
    pub sent: usize,
    /// The rest.
    pub carried: Carried,
}

impl HandedOver {
    /// A session with a stream that goes on after `handled` stanzas of the client and `acknowledged` of the server.
    #[must_use]
    pub fn new(
        (from, since): (NodeId, Timestamp),
        ticket: Ticket,
        (handled, acknowledged): (Count, Count),
        unsent: Vec<Left>,
        carried: Carried,
    ) -> Self {
        let unsent = unsent.into_iter().map(|Left { bytes, elsewhere, known, waited }| Unsent {
            bytes,
            elsewhere,
            known,
            waited,
        });
        HandedOver {
            index: BindIndex(0),
            from,
            since,
            hash: ticket.hash,
            seconds: ticket.seconds,
            handled,
            acknowledged,
            unsent: unsent.collect(),
            sent: 0,
            carried,
        }
    }

    /// How it is resumed the next time.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { hash: self.hash, seconds: self.seconds }
    }

    /// What is to be sent to the client, in order.
    pub fn take_unsent(&mut self) -> Vec<Left> {
        let unsent = std::mem::take(&mut self.unsent).into_iter();
        unsent
            .map(|Unsent { bytes, elsewhere, known, waited }| Left { bytes, elsewhere, known, waited })
            .collect()
    }

    /// As bytes, for another node.
    ///
    /// # Errors
    /// As [`wire::encode`].
    pub fn encode(&self) -> Result<Bytes, WireError> {
        wire::encode(self).map(Bytes::from)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`WireError`] for damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes)
    }
}

/// A presence as it is carried.
#[must_use]
pub fn presence(carried: Option<&Bytes>) -> Option<Stanza> {
    carried.and_then(|xml| Stanza::from_standalone(xml))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> FullJid {
        FullJid::new(text).unwrap()
    }

    #[test]
    fn an_sm_id_finds_its_session_and_that_of_nobody_else() {
        let id = sm_id([7; 16], &jid("a@b/\u{e6} c"));
        assert_eq!(session_of(&id, &BareJid::new("a@b").unwrap()), Some(jid("a@b/\u{e6} c")));
        assert_eq!(session_of(&id, &BareJid::new("d@b").unwrap()), Some(jid("d@b/\u{e6} c")));
        assert_ne!(hash(&id, &jid("a@b/\u{e6} c")), hash(&id, &jid("d@b/\u{e6} c")));
        for none in ["", "x", "some'id", &id[..21], &sm_id([7; 16], &jid("a@b/c"))[..22]] {
            assert_eq!(session_of(none, &BareJid::new("a@b").unwrap()), None, "{none}");
        }
    }

    /// Nodes of two releases must take each other's streams over.
    #[test]
    fn golden_bytes() {
        let carried = Carried {
            presence: Some(Bytes::from_static(b"<p/>")),
            said: None,
            directed: vec![Jid::new("a@b").unwrap()],
            roster: Some(300),
            took_over: true,
            active_list: Some(2),
            asked_for_blocks: false,
            invisible: Some(true),
            seen: vec![9],
            carbons: true,
            arrived: vec![StanzaId::from_bytes([8; 16])],
            fetches: true,
            receipts: true,
            recent: vec![StanzaId::from_bytes([7; 16])],
        };
        let elsewhere = Some(Timestamp::from_millis(6));
        let unsent = Left { bytes: Bytes::from_static(b"<m/>"), elsewhere, known: None, waited: None };
        let ticket = Ticket { hash: [1; 32], seconds: 300 };
        let mut handed = HandedOver::new(
            (NodeId::new(5), Timestamp::from_millis(4)),
            ticket,
            (Count(2), Count(3)),
            vec![unsent],
            carried,
        );
        handed.index = BindIndex(7);
        let bytes = handed.encode().unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = format!(
            "070504{}fb2c01020301043c6d2f3e0106000001043c702f3e00010361406201fb2c0101010200010101090101{}010101{}",
            "01".repeat(32),
            "08".repeat(16),
            "07".repeat(16)
        );
        assert_eq!(hex, golden);
        let mut back = HandedOver::decode(&bytes).unwrap();
        assert_eq!(back, handed);
        assert_eq!((back.ticket(), back.take_unsent().len()), (ticket, 1));
        assert!(HandedOver::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
