//! Stream errors: all conditions of RFC 6120 §4.9.3, exhaustive.

use std::fmt;

use minidom::Element;

use super::management::TooHigh;
use crate::ns;

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A defined condition of a stream error (RFC 6120 §4.9.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum StreamCondition { $($(#[$doc])* $variant,)* }

        impl StreamCondition {
            /// All conditions, in the order of the RFC.
            pub const ALL: &'static [StreamCondition] = &[$(StreamCondition::$variant,)*];

            /// The element name of the condition.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(StreamCondition::$variant => $name,)* }
            }
        }
    };
}

conditions! {
    /// §4.9.3.1: XML that cannot be processed.
    BadFormat = "bad-format",
    /// §4.9.3.2: an unsupported namespace prefix.
    BadNamespacePrefix = "bad-namespace-prefix",
    /// §4.9.3.3: a new stream, or a new bind of the resource, replaces this one.
    Conflict = "conflict",
    /// §4.9.3.4: the peer is gone, or silent for too long.
    ConnectionTimeout = "connection-timeout",
    /// §4.9.3.5: the domain is no longer served here.
    HostGone = "host-gone",
    /// §4.9.3.6: the domain is not served here.
    HostUnknown = "host-unknown",
    /// §4.9.3.7: a stanza between servers lacks an address or bears a wrong one.
    ImproperAddressing = "improper-addressing",
    /// §4.9.3.8: the server erred.
    InternalServerError = "internal-server-error",
    /// §4.9.3.9: `from` does not match the authenticated entity.
    InvalidFrom = "invalid-from",
    /// §4.9.3.10: a wrong namespace of the stream or its content.
    InvalidNamespace = "invalid-namespace",
    /// §4.9.3.11: XML invalid under a schema.
    InvalidXml = "invalid-xml",
    /// §4.9.3.12: data sent before it was allowed.
    NotAuthorized = "not-authorized",
    /// §4.9.3.13: not well-formed XML.
    NotWellFormed = "not-well-formed",
    /// §4.9.3.14: a local policy was broken, such as a limit on size.
    PolicyViolation = "policy-violation",
    /// §4.9.3.15: a remote entity that is needed cannot be reached.
    RemoteConnectionFailed = "remote-connection-failed",
    /// §4.9.3.16: features have changed, the peer should start anew.
    Reset = "reset",
    /// §4.9.3.17: the server lacks resources.
    ResourceConstraint = "resource-constraint",
    /// §4.9.3.18: DTD, entity, comment or processing instruction.
    RestrictedXml = "restricted-xml",
    /// §4.9.3.19: the peer should connect elsewhere.
    SeeOtherHost = "see-other-host",
    /// §4.9.3.20: the server is being shut down.
    SystemShutdown = "system-shutdown",
    /// §4.9.3.21: none of the others.
    UndefinedCondition = "undefined-condition",
    /// §4.9.3.22: an encoding other than UTF-8.
    UnsupportedEncoding = "unsupported-encoding",
    /// §4.9.3.23: a mandatory feature is not supported.
    UnsupportedFeature = "unsupported-feature",
    /// §4.9.3.24: a first-level child that is no stanza and not negotiated.
    UnsupportedStanzaType = "unsupported-stanza-type",
    /// §4.9.3.25: a version that is not supported.
    UnsupportedVersion = "unsupported-version",
}

/// A stream error: it always ends its stream (RFC 6120 §4.9.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// The defined condition.
    pub condition: StreamCondition,
    /// Text for a developer's eyes, in English.
    pub text: Option<String>,
    /// What stream management says besides (XEP-0198 §6).
    pub too_high: Option<TooHigh>,
}

impl StreamError {
    /// An error with a text that helps the peer's developer.
    #[must_use]
    pub fn new(condition: StreamCondition, text: impl Into<String>) -> Self {
        StreamError { condition, text: Some(text.into()), too_high: None }
    }

    /// The `<stream:error/>` element (RFC 6120 §4.9.2).
    #[must_use]
    pub fn to_element(&self) -> Element {
        let mut builder = Element::builder("error", ns::STREAM)
            .append(Element::bare(self.condition.name(), ns::STREAM_ERRORS));
        if let Some(text) = &self.text {
            builder = builder.append(Element::builder("text", ns::STREAM_ERRORS).append(text.as_str()));
        }
        builder.append_all(self.too_high.map(TooHigh::to_element)).build()
    }
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> Self {
        StreamError { condition, text: None, too_high: None }
    }
}

impl From<TooHigh> for StreamError {
    fn from(too_high: TooHigh) -> Self {
        let TooHigh { handled, sent } = too_high;
        let text = format!("you acknowledged {handled} stanzas, but were only sent {sent} so far");
        let too_high = Some(too_high);
        StreamError { too_high, ..StreamError::new(StreamCondition::UndefinedCondition, text) }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StreamError {}
