//! PURE: which modules want which packets.

use althing_proto::stanza::{IqType, Kind, Stanza};

/// Places of the pipeline, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(u8);

impl At {
    /// The sender's pass.
    pub const OUTBOUND: At = At(1);
    /// The receiver is a domain that is served here.
    pub const SERVER: At = At(2);
    /// The receiver is the sender's own account: no `to`, or its own bare JID (RFC 6120 §10.3.3).
    pub const OWN_ACCOUNT: At = At(4);
    /// The receiver is another account.
    pub const OTHER_ACCOUNT: At = At(8);
    /// The receiver's pass, in its session.
    pub const INBOUND: At = At(16);

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: At) -> At {
        At(self.0 | other.0)
    }

    /// Whether the sets share a place.
    #[must_use]
    pub const fn meets(self, other: At) -> bool {
        self.0 & other.0 != 0
    }
}

/// What kind of stanza a module wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An IQ of type get with a child in that namespace.
    IqGet(&'static str),
    /// An IQ of type set with a child in that namespace.
    IqSet(&'static str),
    /// Every presence.
    Presence,
    /// Every message.
    Message,
}

/// One line of what a module wants to see: the stanza, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Which stanzas.
    pub wanted: Wanted,
    /// In which places.
    pub at: At,
}

impl Interest {
    /// IQs of type get with a child in `namespace`.
    #[must_use]
    pub const fn iq_get(namespace: &'static str, at: At) -> Self {
        Interest { wanted: Wanted::IqGet(namespace), at }
    }

    /// IQs of type set with a child in `namespace`.
    #[must_use]
    pub const fn iq_set(namespace: &'static str, at: At) -> Self {
        Interest { wanted: Wanted::IqSet(namespace), at }
    }

    /// Every presence.
    #[must_use]
    pub const fn presence(at: At) -> Self {
        Interest { wanted: Wanted::Presence, at }
    }

    /// Every message.
    #[must_use]
    pub const fn message(at: At) -> Self {
        Interest { wanted: Wanted::Message, at }
    }

    /// Whether the stanza, at that place, is wanted.
    #[must_use]
    pub fn matches(&self, stanza: &Stanza, at: At) -> bool {
        use althing_proto::xml::build::ElementExt;

        let payload_in = |namespace| stanza.payload().is_some_and(|payload| payload.is_ns(namespace));
        self.at.meets(at)
            && match (self.wanted, stanza.kind()) {
                (Wanted::IqGet(namespace), Kind::Iq(IqType::Get))
                | (Wanted::IqSet(namespace), Kind::Iq(IqType::Set)) => payload_in(namespace),
                (Wanted::Presence, Kind::Presence(_)) | (Wanted::Message, Kind::Message(_)) => true,
                _ => false,
            }
    }
}
