//! What the holder of the socket must do, and the pen that writes it down.

use bytes::Bytes;
use minidom::Element;

use super::error::StreamCondition;
use super::framing::Framing;
use super::management::Count;
use crate::jid::{BareJid, ResourcePart};
use crate::ns;
use crate::sasl::{Mechanism, SaslCondition, Secret};
use crate::xml::writer::write_element;

/// A thing to do. Actions are done in the order they come.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send these bytes.
    Send(Bytes),
    /// Flush, then do the TLS handshake as its server; answer `TlsEstablished`. Bytes that were read
    /// before the handshake must not be handed in after it.
    StartTls,
    /// Look up the credentials of an account, which may not exist; answer `Credentials`.
    FetchCredentials {
        /// The account.
        user: BareJid,
    },
    /// Check a password off the event loop; answer `PasswordChecked`. For an account that does not exist
    /// check it against [`decoy`](crate::sasl::decoy) credentials, so that the answer takes as long.
    CheckPassword {
        /// The account.
        user: BareJid,
        /// The password.
        password: Secret,
    },
    /// A SASL exchange has ended (RFC 6120 §6.4.5, §6.4.6): to be counted and logged, nothing more.
    LoginEnded {
        /// The mechanism; `None` where the client named none that is ours.
        mechanism: Option<Mechanism>,
        /// Why it failed; `None` for a success.
        failure: Option<SaslCondition>,
    },
    /// Bind a resource; answer `Bound`.
    Bind {
        /// The account, logged in.
        user: BareJid,
        /// The resource.
        resource: ResourcePart,
        /// Whether the client asked for it; else it was made here and is unguessable.
        requested: bool,
    },
    /// Resume a former stream of the account (XEP-0198 §5); answer `Resumed`.
    Resume {
        /// The account, logged in.
        user: BareJid,
        /// The SM-ID of the former stream.
        previd: String,
        /// The last stanza of that stream that the client has handled.
        handled: Count,
    },
    /// Answer an iq of a client that has not logged in (XEP-0077), with `PreLoginReply`.
    PreLogin(Element),
    /// A first-level element of a bound client: a stanza, or what its features have negotiated.
    Element(Element),
    /// The peer has ended its stream in order. The end of ours follows.
    StreamClosed,
    /// The stream error before it ends the stream (RFC 6120 §4.9): to be counted and logged, nothing more.
    StreamFailed(StreamCondition),
    /// Flush what was sent, then close the connection. The last action of each stream.
    Close,
}

/// Collects actions; sends that follow each other become one.
pub(super) struct Output<'a> {
    actions: &'a mut Vec<Action>,
    framing: Framing,
    bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    pub(super) fn new(actions: &'a mut Vec<Action>, framing: Framing) -> Self {
        Output { actions, framing, bytes: Vec::new() }
    }

    /// Where to write what is to be sent.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn send(&mut self, element: &Element) {
        match self.framing {
            Framing::Tcp => write_element(element, ns::CLIENT, &mut self.bytes),
            Framing::WebSocket => {
                let mut bytes = Vec::new();
                write_element(element, ns::CLIENT, &mut bytes);
                self.framing.write(&bytes, &mut self.bytes);
            }
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    pub(super) fn push(&mut self, action: Action) {
        self.flush();
        self.actions.push(action);
    }

    pub(super) fn flush(&mut self) {
        if !self.bytes.is_empty() {
            self.actions.push(Action::Send(Bytes::from(std::mem::take(&mut self.bytes))));
        }
    }
}
