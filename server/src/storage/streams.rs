//! Records of streams that can be resumed (XEP-0198 §5): what is known of one whose node is lost.
//!
//! A record is small and there is one for an address: that of its last stream. Its number of handled stanzas advances in the
//! change that keeps the message it is about, so that it is true whenever a node dies; for all else it is written behind.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StorageError;
use super::messages::{KeepMessage, Kept, MAX_PAGE, within};

/// Most changes that are made at once.
pub const MAX_CHANGES: usize = MAX_PAGE;

/// Names a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamKey {
    /// The address that is bound to it.
    pub jid: FullJid,
    /// The hash of its SM-ID.
    pub hash: [u8; 32],
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Which.
    pub key: StreamKey,
    /// The bind of its session.
    pub bind: BindIndex,
    /// The last stanza of the client that is handled.
    pub handled: Count,
    /// Seconds for which it is worth something when its session is gone.
    pub seconds: u64,
}

/// So much of a stream is handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// Which stream.
    pub key: StreamKey,
    /// The last stanza that is.
    pub number: Count,
    /// Where a message is kept with it: only with all that has its place before is so much handled. `None`: it is.
    pub place: Option<KeepPlace>,
}

/// The place of a message among those of its stream that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepPlace {
    /// The session's. What is kept for an earlier session of the stream says nothing of what is handled.
    pub bind: BindIndex,
    /// Where one was not kept, those behind it in its turn say nothing of what is handled; the next turn does.
    pub turn: u32,
    /// Its number in the turn, from 1.
    pub number: u64,
}

/// What happens to a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamChange {
    /// The stream has begun, or goes on under another bind. It takes the place of an older one of its address.
    Began(StreamRecord),
    /// More of it is handled. An older word changes nothing.
    Handled(Handled),
    /// It has ended in order: nobody will ask for it.
    Ended(StreamKey),
    /// Its session was found gone at that time. When it has been for as long as the record is worth something, it goes.
    Gone(StreamKey, Timestamp),
    /// The same of the session of that bind: where the record is of a later one by now, nothing is known of that.
    GoneOf(StreamKey, BindIndex, Timestamp),
    /// Its client is told how much of it is handled, and writes the rest on another stream: no more of it is handled from
    /// now on, and nothing more of it is kept, unless it begins anew.
    Closed(StreamKey),
}

impl StreamChange {
    /// The stream that it is about.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        match self {
            StreamChange::Began(record) => &record.key,
            StreamChange::Handled(handled) => &handled.key,
            StreamChange::Ended(key)
            | StreamChange::Gone(key, _)
            | StreamChange::GoneOf(key, ..)
            | StreamChange::Closed(key) => key,
        }
    }
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamRow {
    pub(super) record: StreamRecord,
    gone: Option<Timestamp>,
    /// Streams of the address that are closed, the last ones: a node that was cut off may still want to keep something of them.
    closed: Vec<[u8; 32]>,
    chain: Chain,
}

/// How far the messages of a stream are kept without a gap, so that what is said of those before each is so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    turn: u32,
    last: u64,
    /// Those that came before their turn, which a node without a replica may bring about: by their numbers, with what is handled.
    early: Vec<(u64, Count)>,
}

/// Most messages that come before their turn: of a later one is not noted what it says.
const MAX_EARLY: usize = 1_024;

impl Chain {
    /// A message is kept, with which and all before it so much is handled: what is handled now; `None`: not more.
    fn keeps(&mut self, place: KeepPlace, handled: Count) -> Option<Count> {
        if place.turn > self.turn {
            *self = Chain { turn: place.turn, ..Chain::default() };
        }
        if place.turn < self.turn || place.number <= self.last {
            return None;
        }
        if place.number > self.last + 1 {
            let at = self.early.partition_point(|(number, _)| *number < place.number);
            let is_known = self.early.get(at).is_some_and(|(number, _)| *number == place.number);
            if !is_known && self.early.len() < MAX_EARLY {
                self.early.insert(at, (place.number, handled));
            }
            return None;
        }
        let (mut last, mut handled) = (place.number, handled);
        let next = |(number, said): &(u64, Count)| {
            (*number == last + 1).then(|| (last, handled) = (*number, later(handled, *said))).is_some()
        };
        let many = self.early.iter().map(next).take_while(|is_next| *is_next).count();
        self.early.drain(..many);
        self.last = last;
        Some(handled)
    }

    /// Whether that one is kept. Of an earlier turn nothing is known.
    fn has(&self, place: KeepPlace) -> bool {
        let is_early = || self.early.binary_search_by_key(&place.number, |(number, _)| *number).is_ok();
        place.turn == self.turn && (place.number <= self.last || is_early())
    }
}

/// How many closed streams of an address are remembered.
const MAX_CLOSED: usize = 4;

impl StreamRow {
    /// What is in the place of `before` afterwards.
    pub(super) fn changed(before: Option<StreamRow>, change: &StreamChange) -> Option<StreamRow> {
        let hash = change.key().hash;
        if let StreamChange::Began(record) = change {
            let (mut record, mut closed, mut chain) = (record.clone(), Vec::new(), Chain::default());
            if let Some(before) = before {
                if before.record.key.hash == hash {
                    record.handled = later(before.record.handled, record.handled);
                    if before.record.bind == record.bind {
                        chain = before.chain;
                    }
                }
                closed = before.closed;
                closed.retain(|of| *of != hash);
            }
            return Some(StreamRow { record, gone: None, closed, chain });
        }
        let mut row = before?;
        if row.record.key.hash != hash {
            return Some(row);
        }
        match change {
            StreamChange::Handled(_) if row.is_closed(&hash) => {}
            StreamChange::Handled(Handled { number, place, .. }) => {
                let number = match place {
                    Some(place) if place.bind == row.record.bind => row.chain.keeps(*place, *number),
                    Some(_) => None,
                    None => Some(*number),
                };
                row.record.handled = number.map_or(row.record.handled, |it| later(row.record.handled, it));
            }
            StreamChange::GoneOf(_, bind, _) if *bind != row.record.bind => {}
            StreamChange::Gone(_, at) | StreamChange::GoneOf(_, _, at) => match row.gone {
                None => row.gone = Some(*at),
                Some(since) if at.since(since).as_secs() >= row.record.seconds => return None,
                Some(_) => {}
            },
            StreamChange::Ended(_) => return None,
            StreamChange::Closed(_) if row.is_closed(&hash) => {}
            StreamChange::Closed(_) => {
                row.closed.push(hash);
                if row.closed.len() > MAX_CLOSED {
                    row.closed.remove(0);
                }
            }
            StreamChange::Began(_) => {}
        }
        Some(row)
    }

    /// Whether a message of that place is kept already: it comes once more, for nobody knew what had become of it.
    pub(super) fn has_kept(&self, handled: &Handled) -> bool {
        let place = handled.place.filter(|place| place.bind == self.record.bind);
        handled.key.hash == self.record.key.hash && place.is_some_and(|place| self.chain.has(place))
    }

    /// Whether nothing of that stream is kept any more.
    pub(super) fn is_closed(&self, hash: &[u8; 32]) -> bool {
        self.closed.contains(hash)
    }
}

fn later(one: Count, other: Count) -> Count {
    if other.since(one).is_some() { other } else { one }
}

/// Records of streams.
#[async_trait]
pub trait Streams: Send + Sync {
    /// Changes records, in this order, all at once; those of addresses without an account are passed over. At most
    /// [`MAX_CHANGES`].
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError>;

    /// As [`Messages::keep`](super::Messages::keep), and in the same change so much of the sender's stream is handled:
    /// both or neither. Its order is that of the other messages. Where the stream is closed: neither, for each owner
    /// [`Kept::Closed`]. What comes once more in its place is not kept anew, though it may be settled: [`Kept::Not`].
    ///
    /// # Errors
    /// As there.
    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError>;

    /// The record of the last stream of an address, if there is one.
    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError>;

    /// Up to `limit` records, of addresses that come after `after`, in an order of the store's own. At most
    /// [`MAX_CHANGES`].
    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError>;

    /// The secret by which messages of streams get their ids: the same on all nodes, for ever. `candidate` becomes it
    /// where there is none.
    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError>;
}

/// Refuses too many changes.
pub(super) fn check_changes(changes: &[StreamChange]) -> Result<(), StorageError> {
    within("list of ids", changes.len(), MAX_CHANGES)
}
