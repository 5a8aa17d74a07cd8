//! Stanza errors: all conditions of RFC 6120 §8.3.3, exhaustive.

use std::fmt;

use minidom::Element;

use crate::ns;
use crate::xml::build::BuilderExt;
use crate::xml::name;

/// What the sender can do about an error (RFC 6120 §8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// Proceed: it was only a warning.
    Continue,
    /// Retry after changing the data sent.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    /// The value of the `type` attribute.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorType::Auth => "auth",
            ErrorType::Cancel => "cancel",
            ErrorType::Continue => "continue",
            ErrorType::Modify => "modify",
            ErrorType::Wait => "wait",
        }
    }
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident;)*) => {
        /// A defined condition of a stanza error (RFC 6120 §8.3.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum StanzaCondition { $($(#[$doc])* $variant,)* }

        impl StanzaCondition {
            /// All conditions, in the order of the RFC.
            pub const ALL: &'static [StanzaCondition] = &[$(StanzaCondition::$variant,)*];

            /// The element name of the condition.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(StanzaCondition::$variant => $name,)* }
            }

            /// The error type that the RFC recommends for the condition.
            #[must_use]
            pub const fn error_type(self) -> ErrorType {
                match self { $(StanzaCondition::$variant => ErrorType::$kind,)* }
            }
        }
    };
}

conditions! {
    /// §8.3.3.1: malformed XML of a stanza, or one that breaks the rules of its kind.
    BadRequest = "bad-request", Modify;
    /// §8.3.3.2: something of that name exists already.
    Conflict = "conflict", Cancel;
    /// §8.3.3.3: understood, but not implemented.
    FeatureNotImplemented = "feature-not-implemented", Cancel;
    /// §8.3.3.4: the sender lacks permission.
    Forbidden = "forbidden", Auth;
    /// §8.3.3.5: the entity is no longer at this address.
    Gone = "gone", Cancel;
    /// §8.3.3.6: the server erred.
    InternalServerError = "internal-server-error", Cancel;
    /// §8.3.3.7: the item does not exist.
    ItemNotFound = "item-not-found", Cancel;
    /// §8.3.3.8: an address that is not a JID.
    JidMalformed = "jid-malformed", Modify;
    /// §8.3.3.9: understood, but it breaks criteria of the recipient.
    NotAcceptable = "not-acceptable", Modify;
    /// §8.3.3.10: nobody may do that.
    NotAllowed = "not-allowed", Cancel;
    /// §8.3.3.11: credentials are needed first.
    NotAuthorized = "not-authorized", Auth;
    /// §8.3.3.12: a local policy was broken.
    PolicyViolation = "policy-violation", Modify;
    /// §8.3.3.13: the recipient is away for a while.
    RecipientUnavailable = "recipient-unavailable", Wait;
    /// §8.3.3.14: ask at another address.
    Redirect = "redirect", Modify;
    /// §8.3.3.15: register first.
    RegistrationRequired = "registration-required", Auth;
    /// §8.3.3.16: the remote server does not exist.
    RemoteServerNotFound = "remote-server-not-found", Cancel;
    /// §8.3.3.17: the remote server did not answer in time.
    RemoteServerTimeout = "remote-server-timeout", Wait;
    /// §8.3.3.18: the server or the recipient lacks resources.
    ResourceConstraint = "resource-constraint", Wait;
    /// §8.3.3.19: no such service here, or none that may be disclosed.
    ServiceUnavailable = "service-unavailable", Cancel;
    /// §8.3.3.20: subscribe first.
    SubscriptionRequired = "subscription-required", Auth;
    /// §8.3.3.21: none of the others.
    UndefinedCondition = "undefined-condition", Cancel;
    /// §8.3.3.22: understood, but not at this moment.
    UnexpectedRequest = "unexpected-request", Wait;
}

/// A stanza error (RFC 6120 §8.3).
#[derive(Debug, Clone, PartialEq)]
pub struct StanzaError {
    /// What the sender can do about it.
    pub error_type: ErrorType,
    /// The defined condition.
    pub condition: StanzaCondition,
    /// Text for a developer's eyes, in English.
    pub text: Option<String>,
    /// An application-specific condition (§8.3.4).
    pub application: Option<Box<Element>>,
}

impl StanzaError {
    /// An error of the condition's recommended type, with a text that helps the sender's developer.
    #[must_use]
    pub fn new(condition: StanzaCondition, text: impl Into<String>) -> Self {
        StanzaError { text: Some(text.into()), ..StanzaError::from(condition) }
    }

    /// The `<error/>` element (§8.3.2).
    #[must_use]
    pub fn to_element(&self) -> Element {
        let mut builder = Element::builder("error", ns::CLIENT)
            .set(name!("type"), self.error_type.name())
            .append(Element::bare(self.condition.name(), ns::STANZA_ERRORS));
        if let Some(text) = &self.text {
            builder = builder.append(Element::builder("text", ns::STANZA_ERRORS).append(text.as_str()));
        }
        if let Some(application) = &self.application {
            builder = builder.append(Element::clone(application));
        }
        builder.build()
    }
}

impl From<StanzaCondition> for StanzaError {
    fn from(condition: StanzaCondition) -> Self {
        StanzaError { error_type: condition.error_type(), condition, text: None, application: None }
    }
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StanzaError {}
