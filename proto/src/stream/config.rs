//! What a listener offers on its streams.

use std::time::Duration;

use minidom::Element;

use crate::jid::DomainPart;
use crate::sasl::Mechanism;
use crate::xml::limits::Limits;

/// Settings of client-to-server streams; shared by all connections of a listener.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Domains served here. The first answers a client that names none.
    pub domains: Vec<DomainPart>,
    /// Whether STARTTLS is offered on a connection without TLS (RFC 6120 §5).
    pub starttls: bool,
    /// Whether login and registration are allowed without TLS: for tests and for loopback only.
    pub allow_plaintext: bool,
    /// Mechanisms to offer where they fit the connection. Their order here means nothing: the strongest
    /// is offered first.
    pub mechanisms: Vec<Mechanism>,
    /// Whether in-band registration (XEP-0077) is offered before login.
    pub registration: bool,
    /// Limits on XML from a client that has not logged in.
    pub limits_before: Limits,
    /// Limits on XML from a client that has.
    pub limits_after: Limits,
    /// After so long without a byte of a client that has logged in the server asks whether it is there; `None`: never.
    /// The machine only tells it (XEP-0478).
    pub idle: Option<Duration>,
    /// Time from the connection's start to a bound resource.
    pub login_timeout: Duration,
    /// Failed logins after which the stream is closed (RFC 6120 §6.4.5 advises 2 to 5).
    pub max_auth_failures: u32,
    /// Further stream features for a client that has logged in.
    pub features_after_login: Vec<Element>,
    /// Key of the fake salts for unknown users; the same on all nodes and over restarts.
    pub decoy_secret: [u8; 32],
    /// Iteration count of fake salts: what real accounts have.
    pub scram_iterations: u32,
}
