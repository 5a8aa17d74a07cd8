//! Where a stream stands. Each state carries what it needs and no more, so that an illegal one cannot be
//! spelled.

use crate::jid::{BareJid, FullJid};
use crate::sasl::Mechanism;
use crate::sasl::server::{ScramChallenge, ScramStart};
use crate::time::Timestamp;

use super::input::Bar;

pub(super) enum State {
    /// The client's header is due; `user` has logged in on the stream before.
    Header { user: Option<BareJid> },
    /// Features were sent, the client has not logged in.
    Login,
    /// `<proceed/>` was sent. Waits for the TLS handshake.
    TlsHandshake,
    /// Waits for the answer to an iq before login.
    PreLogin,
    /// An empty challenge was sent; the mechanism's first message is due.
    SaslFirst { mechanism: Mechanism },
    /// Waits for the keys of `user`.
    ScramKeys { start: Box<ScramStart>, user: BareJid },
    /// A challenge was sent, the proof is due. `known` is false where the keys are fake.
    ScramProof { challenge: Box<ScramChallenge>, user: BareJid, known: bool, bar: Option<Bar> },
    /// Waits for the check of a password.
    Password { user: BareJid },
    /// Logged in, features were sent, a bind is due.
    Bind { user: BareJid },
    /// Waits for the bind of the iq with this id.
    Binding { user: BareJid, id: String },
    /// Waits for the former stream of this SM-ID.
    Resuming { user: BareJid, previd: String },
    /// Bound.
    Established { jid: FullJid },
    /// Our end tag was sent, the peer's is due by the deadline. What a bound client still sends counts.
    Ending { jid: Option<FullJid>, deadline: Timestamp },
    /// Nothing more goes in or out.
    Ended,
}

impl State {
    /// Whether the machine waits for an answer: bytes are kept until then.
    pub(super) fn waits(&self) -> bool {
        matches!(
            self,
            State::PreLogin
                | State::ScramKeys { .. }
                | State::Password { .. }
                | State::Binding { .. }
                | State::Resuming { .. }
        )
    }
}
