//! Why XML was refused, and the stream error that says so (RFC 6120 §4.9.3, §11).

use crate::stream::error::{StreamCondition, StreamError};

/// Why a [`StreamReader`](super::reader::StreamReader) stopped. Every one ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Not well-formed, or not namespace-well-formed (RFC 6120 §11.3). An undeclared prefix belongs
    /// here: `bad-namespace-prefix` (§4.9.3.2) is for a prefix that is declared but not supported.
    #[error("not well-formed: {0}")]
    NotWellFormed(String),
    /// A feature of XML that streams may not use: comment, processing instruction, DTD, entity other
    /// than the five predefined ones (RFC 6120 §11.1).
    #[error("restricted XML: {0}")]
    Restricted(&'static str),
    /// Not UTF-8: another encoding is declared, or the bytes break UTF-8's rules, which
    /// RFC 6120 §4.9.3.22 puts under the same condition (§11.6).
    #[error("unsupported encoding: {0}")]
    Encoding(String),
    /// Well-formed XML that a stream has no place for, such as text between stanzas
    /// (RFC 6120 §4.9.3.1).
    #[error("bad format: {0}")]
    Format(&'static str),
    /// A bound was passed (RFC 6120 §4.9.3.14).
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

/// The bound that was passed, with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// [`Limits::stanza_bytes`](super::limits::Limits::stanza_bytes).
    #[error("an element may have at most {0} bytes")]
    StanzaBytes(usize),
    /// [`Limits::depth`](super::limits::Limits::depth).
    #[error("elements may nest at most {0} levels deep")]
    Depth(usize),
    /// [`Limits::attributes`](super::limits::Limits::attributes).
    #[error("an element may have at most {0} attributes")]
    Attributes(usize),
    /// [`Limits::children`](super::limits::Limits::children).
    #[error("a stanza may hold at most {0} elements")]
    Children(usize),
    /// Namespace declarations in force at one place.
    #[error("at most {0} namespace declarations may be in force")]
    Bindings(usize),
    /// Attributes with a prefix in one stanza, bounded by
    /// [`Limits::attributes`](super::limits::Limits::attributes) too.
    #[error("a stanza may have at most {0} attributes with a prefix")]
    Prefixed(usize),
    /// Bytes of one namespace name.
    #[error("a namespace name may have at most {0} bytes")]
    NamespaceBytes(usize),
    /// Bytes of one name or attribute value.
    #[error("a name or attribute value may have at most {0} bytes")]
    TokenBytes(usize),
}

impl XmlError {
    /// The condition of the stream error that tells the peer (RFC 6120 §4.9.3).
    #[must_use]
    pub const fn condition(&self) -> StreamCondition {
        match self {
            XmlError::NotWellFormed(_) => StreamCondition::NotWellFormed,
            XmlError::Restricted(_) => StreamCondition::RestrictedXml,
            XmlError::Encoding(_) => StreamCondition::UnsupportedEncoding,
            XmlError::Format(_) => StreamCondition::BadFormat,
            XmlError::Limit(_) => StreamCondition::PolicyViolation,
        }
    }
}

impl From<&XmlError> for StreamError {
    fn from(error: &XmlError) -> Self {
        StreamError::new(error.condition(), error.to_string())
    }
}

impl From<rxml::Error> for XmlError {
    /// Sorts the tokenizer's errors. Some differ only by their text; the tests of the reader name
    /// each of these, so that an update that words one differently is noticed.
    fn from(error: rxml::Error) -> Self {
        use rxml::Error as E;
        match error {
            E::InvalidUtf8Byte(_) | E::RestrictedXml("only utf-8 encoding is allowed") => {
                XmlError::Encoding(error.to_string())
            }
            E::RestrictedXml("long name or reference") => {
                LimitExceeded::TokenBytes(super::limits::TOKEN_BYTES).into()
            }
            E::RestrictedXml("only XML version 1.0 is allowed") => {
                XmlError::Format("only XML version 1.0 is supported")
            }
            E::RestrictedXml(what) => XmlError::Restricted(what),
            E::UndeclaredEntity => XmlError::Restricted("entity reference"),
            // After `<!` only a comment, a CDATA section or a DTD's markup can stand.
            E::InvalidSyntax("malformed cdata or comment section start") => {
                XmlError::Restricted("document type declaration")
            }
            other => XmlError::NotWellFormed(other.to_string()),
        }
    }
}

/// Shorthand for [`XmlError::NotWellFormed`].
pub(super) fn not_well_formed(why: impl Into<String>) -> XmlError {
    XmlError::NotWellFormed(why.into())
}
