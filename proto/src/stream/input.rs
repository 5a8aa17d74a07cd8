//! What can happen to a stream.

use minidom::Element;

use super::error::StreamError;
use super::management::{Count, TooHigh};
use crate::jid::FullJid;
use crate::sasl::{Credentials, SaslCondition, TlsInfo};
use crate::stanza::{StanzaCondition, StanzaError};

/// How a connection begins.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Without TLS; STARTTLS may follow.
    Plain,
    /// With TLS from the first byte (XEP-0368); the handshake is done.
    DirectTls(TlsInfo),
    /// Over a WebSocket whose opening handshake is done (RFC 7395), with the TLS below it, if there is any. Bytes
    /// are frames, both ways.
    WebSocket(Option<TlsInfo>),
}

/// An event for [`StreamMachine::handle`](super::StreamMachine::handle). One that does not fit the state, such
/// as an answer that comes after the stream has ended, is ignored.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from the peer, decrypted.
    Bytes(&'a [u8]),
    /// [`Action::StartTls`](super::Action::StartTls) is done. If the handshake fails, say `PeerClosed`.
    TlsEstablished(TlsInfo),
    /// Answers [`Action::FetchCredentials`](super::Action::FetchCredentials).
    Credentials(CredentialsReply),
    /// Answers [`Action::CheckPassword`](super::Action::CheckPassword).
    PasswordChecked(PasswordVerdict),
    /// Answers [`Action::Bind`](super::Action::Bind) with the full JID that is bound.
    Bound(Result<FullJid, BindError>),
    /// Answers [`Action::Resume`](super::Action::Resume).
    Resumed(Result<Resumption, ResumeError>),
    /// Answers [`Action::PreLogin`](super::Action::PreLogin) with the stanza to send.
    PreLoginReply(Element),
    /// The time of [`StreamMachine::deadline`](super::StreamMachine::deadline) may have come.
    Timer,
    /// The connection is gone: end of file, reset, or a failed TLS handshake.
    PeerClosed,
    /// The server ends the stream with an error.
    Fail(StreamError),
    /// The server ends the stream in order and waits for the peer to do the same (RFC 6120 §4.4).
    End,
}

/// Why an account with the right password may not log in. Told only after the password was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// The account is disabled for now (RFC 6120 §6.5.2).
    Disabled,
    /// Its credentials have expired (RFC 6120 §6.5.3).
    Expired,
}

impl Bar {
    pub(super) fn condition(self) -> SaslCondition {
        match self {
            Bar::Disabled => SaslCondition::AccountDisabled,
            Bar::Expired => SaslCondition::CredentialsExpired,
        }
    }
}

/// What the account store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsReply {
    /// The account exists.
    Found {
        /// Its keys.
        credentials: Box<Credentials>,
        /// What bars it from logging in.
        bar: Option<Bar>,
    },
    /// No such account. The client is led on with fake keys, so that it cannot tell.
    Unknown,
    /// The store cannot answer now.
    Unavailable,
}

/// What the check of a password says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// It is the password of the account.
    Right,
    /// It is not, or there is no such account.
    Wrong,
    /// It is, but the account may not log in.
    Barred(Bar),
    /// The store cannot answer now.
    Unavailable,
}

/// Why a resource was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindError {
    /// The resource cannot be used (RFC 6120 §7.7.2.1).
    BadRequest,
    /// Another session holds the resource and keeps it (RFC 6120 §7.7.2.2).
    Conflict,
    /// The account may not bind resources (RFC 6120 §7.6.2.2).
    NotAllowed,
    /// The account has as many sessions as it may (RFC 6120 §7.6.2.1).
    ResourceConstraint,
    /// The server cannot bind now.
    Unavailable,
}

/// A stream that goes on where a former one has broken off (XEP-0198 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// Its full JID.
    pub jid: FullJid,
    /// The last stanza of the client that was handled.
    pub handled: Count,
}

/// Why a former stream is not resumed (XEP-0198 §5, §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeError {
    /// There is none of that SM-ID, or no longer.
    Unknown {
        /// The last stanza of the client that was handled on it, where that is known.
        handled: Option<Count>,
    },
    /// The server resumes no streams.
    Unsupported,
    /// The server cannot tell now: the client is to come again, for its stream may be there.
    Unavailable,
    /// The client acknowledges what it was never sent: its stream ends.
    TooHigh(TooHigh),
}

impl From<BindError> for StanzaError {
    fn from(error: BindError) -> Self {
        StanzaError::from(match error {
            BindError::BadRequest => StanzaCondition::BadRequest,
            BindError::Conflict => StanzaCondition::Conflict,
            BindError::NotAllowed => StanzaCondition::NotAllowed,
            BindError::ResourceConstraint => StanzaCondition::ResourceConstraint,
            BindError::Unavailable => StanzaCondition::InternalServerError,
        })
    }
}
