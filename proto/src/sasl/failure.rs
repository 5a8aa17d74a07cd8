//! Why a login failed: the conditions of RFC 6120 §6.5, exhaustive.

use std::fmt;

use minidom::Element;

use crate::ns;

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A defined condition of a SASL failure (RFC 6120 §6.5).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum SaslCondition { $($(#[$doc])* $variant,)* }

        impl SaslCondition {
            /// All conditions, in the order of the RFC.
            pub const ALL: &'static [SaslCondition] = &[$(SaslCondition::$variant,)*];

            /// The element name of the condition.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(SaslCondition::$variant => $name,)* }
            }
        }
    };
}

conditions! {
    /// §6.5.1: the client aborted.
    Aborted = "aborted",
    /// §6.5.2: the account is disabled for now.
    AccountDisabled = "account-disabled",
    /// §6.5.3: the credentials have expired.
    CredentialsExpired = "credentials-expired",
    /// §6.5.4: the mechanism needs TLS.
    EncryptionRequired = "encryption-required",
    /// §6.5.5: the data is not strict base64.
    IncorrectEncoding = "incorrect-encoding",
    /// §6.5.6: the authorization identity is malformed, or not the user's own.
    InvalidAuthzid = "invalid-authzid",
    /// §6.5.7: the mechanism is unknown, or not offered.
    InvalidMechanism = "invalid-mechanism",
    /// §6.5.8: the request breaks the syntax of SASL or of its mechanism.
    MalformedRequest = "malformed-request",
    /// §6.5.9: the mechanism is weaker than policy allows.
    MechanismTooWeak = "mechanism-too-weak",
    /// §6.5.10: wrong credentials; says the same for an unknown user.
    NotAuthorized = "not-authorized",
    /// §6.5.11: the server cannot check now.
    TemporaryAuthFailure = "temporary-auth-failure",
}

/// A failed login: a condition and a text for the client's developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslFailure {
    /// The defined condition.
    pub condition: SaslCondition,
    /// English text that never tells whether the account exists.
    pub text: Option<&'static str>,
}

impl SaslFailure {
    /// A failure with a text.
    #[must_use]
    pub const fn new(condition: SaslCondition, text: &'static str) -> Self {
        SaslFailure { condition, text: Some(text) }
    }

    /// The `<failure/>` element (RFC 6120 §6.4.5).
    #[must_use]
    pub fn to_element(&self) -> Element {
        let mut builder =
            Element::builder("failure", ns::SASL).append(Element::bare(self.condition.name(), ns::SASL));
        if let Some(text) = self.text {
            builder = builder.append(Element::builder("text", ns::SASL).append(text));
        }
        builder.build()
    }
}

impl From<SaslCondition> for SaslFailure {
    fn from(condition: SaslCondition) -> Self {
        SaslFailure { condition, text: None }
    }
}

impl fmt::Display for SaslFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        match self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SaslFailure {}
