//! The three kinds of stanzas and their types (RFC 6120 §8.2, RFC 6121 §4.7.1 and §5.2.2).

macro_rules! types {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All types.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value of the `type` attribute.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The type of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}

types! {
    /// Types of an IQ (RFC 6120 §8.2.3).
    IqType {
        /// Asks for information.
        Get = "get",
        /// Changes something.
        Set = "set",
        /// Answers a get or set.
        Result = "result",
        /// Answers a get or set that failed.
        Error = "error",
    }
}

types! {
    /// Types of a message (RFC 6121 §5.2.2).
    MessageType {
        /// Part of a conversation of two.
        Chat = "chat",
        /// Reports that an earlier message failed.
        Error = "error",
        /// Part of a room's conversation.
        Groupchat = "groupchat",
        /// An alert that expects no reply.
        Headline = "headline",
        /// A message on its own; also what an absent or unknown type means.
        Normal = "normal",
    }
}

types! {
    /// Types of a presence (RFC 6121 §4.7.1); `Available` is the absence of a type.
    PresenceType {
        /// The sender is available; spelled by leaving the attribute out.
        Available = "",
        /// Reports that an earlier presence failed.
        Error = "error",
        /// Asks for the current presence; only servers send it.
        Probe = "probe",
        /// Asks to see the recipient's presence.
        Subscribe = "subscribe",
        /// Allows the recipient to see one's presence.
        Subscribed = "subscribed",
        /// The sender is no longer available.
        Unavailable = "unavailable",
        /// Ends one's subscription to the recipient.
        Unsubscribe = "unsubscribe",
        /// Ends the recipient's subscription, or denies one.
        Unsubscribed = "unsubscribed",
    }
}

impl PresenceType {
    /// Whether it belongs to subscription management (RFC 6121 §3) rather than to availability.
    #[must_use]
    pub const fn is_subscription(self) -> bool {
        matches!(
            self,
            PresenceType::Subscribe
                | PresenceType::Subscribed
                | PresenceType::Unsubscribe
                | PresenceType::Unsubscribed
        )
    }
}

/// The kind of a stanza with its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `<iq/>` (RFC 6120 §8.2.3).
    Iq(IqType),
    /// `<message/>` (RFC 6121 §5).
    Message(MessageType),
    /// `<presence/>` (RFC 6121 §4).
    Presence(PresenceType),
}

impl Kind {
    /// The element's name.
    #[must_use]
    pub const fn element_name(self) -> &'static str {
        match self {
            Kind::Iq(_) => "iq",
            Kind::Message(_) => "message",
            Kind::Presence(_) => "presence",
        }
    }

    /// Whether a stanza of this kind may ever be answered with an error: never an error, never the
    /// answer of an IQ (RFC 6120 §8.3.1, §8.2.3).
    #[must_use]
    pub const fn may_be_answered(self) -> bool {
        !matches!(
            self,
            Kind::Iq(IqType::Result | IqType::Error)
                | Kind::Message(MessageType::Error)
                | Kind::Presence(PresenceType::Error)
        )
    }
}
