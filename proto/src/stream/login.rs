//! SASL on the stream (RFC 6120 §6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;

use super::action::{Action, Output};
use super::error::{StreamCondition, StreamError};
use super::features;
use super::input::{Bar, CredentialsReply, PasswordVerdict};
use super::machine::StreamMachine;
use super::negotiate::premature;
use super::state::State;
use crate::jid::{BareJid, NodePart};
use crate::ns;
use crate::sasl::server::ScramStart;
use crate::sasl::{Mechanism, SaslCondition, SaslFailure, decoy, plain};

/// Octets of randomness in a server's nonce.
const NONCE_BYTES: usize = 18;

impl StreamMachine {
    pub(super) fn sasl(&mut self, element: &Element, out: &mut Output<'_>) {
        // A step that fails leaves the exchange (§6.4.5): the client may begin another.
        let state = std::mem::replace(&mut self.state, State::Login);
        let result = match (element.name(), state) {
            ("auth", State::Login) => self.auth(element, out),
            ("response", State::SaslFirst { mechanism }) => {
                decode_response(element).and_then(|message| self.first_message(mechanism, &message, out))
            }
            ("response", State::ScramProof { challenge, user, known, bar }) => decode_response(element)
                .and_then(|message| challenge.finish(&message))
                .and_then(|server_final| self.proven(user, known, bar, &server_final, out)),
            ("abort", _) => Err(SaslCondition::Aborted.into()),
            ("auth", _) => Err(malformed("a login is under way")),
            ("response", _) => Err(malformed("no challenge was sent")),
            _ => return self.fail(premature(element), out),
        };
        if let Err(failure) = result {
            self.login_failed(&failure, out);
        }
    }

    fn auth(&mut self, element: &Element, out: &mut Output<'_>) -> Result<(), SaslFailure> {
        let named = element.attr("mechanism").and_then(Mechanism::from_name);
        self.mechanism = named;
        let mechanism = named.ok_or(SaslCondition::InvalidMechanism)?;
        if !features::mechanisms(&self.config, self.tls.as_ref()).contains(&mechanism) {
            let needs_tls = !features::may_log_in(&self.config, self.tls.as_ref());
            let condition =
                if needs_tls { SaslCondition::EncryptionRequired } else { SaslCondition::InvalidMechanism };
            return Err(condition.into());
        }
        match decode(&element.text())? {
            Some(message) => self.first_message(mechanism, &message, out),
            // All our mechanisms begin with the client: ask for its message (RFC 4422 §5, 6a).
            None => {
                out.send(&Element::bare("challenge", ns::SASL));
                self.state = State::SaslFirst { mechanism };
                Ok(())
            }
        }
    }

    fn first_message(
        &mut self,
        mechanism: Mechanism,
        message: &[u8],
        out: &mut Output<'_>,
    ) -> Result<(), SaslFailure> {
        if mechanism == Mechanism::Plain {
            let plain = plain::parse(message)?;
            let user = self.account(&plain.username, plain.authzid.as_deref())?;
            out.push(Action::CheckPassword { user: user.clone(), password: plain.password });
            self.state = State::Password { user };
            return Ok(());
        }
        let tls = self.tls.as_ref();
        let plus_offered = features::mechanisms(&self.config, tls).iter().any(|offered| offered.is_plus());
        let nonce = self.entropy.token(NONCE_BYTES);
        let start = ScramStart::read(mechanism, plus_offered, tls, &nonce, message)?;
        let user = self.account(start.username(), start.authzid())?;
        out.push(Action::FetchCredentials { user: user.clone() });
        self.state = State::ScramKeys { start: Box::new(start), user };
        Ok(())
    }

    /// The account of a simple user name, and whether the client may act as `authzid`: only as itself
    /// (§6.3.8).
    fn account(&self, username: &str, authzid: Option<&str>) -> Result<BareJid, SaslFailure> {
        let domain = self.domain.as_ref().ok_or(SaslCondition::TemporaryAuthFailure)?;
        let node = NodePart::new(username).map_err(|_| SaslCondition::NotAuthorized)?;
        let user = BareJid::from_parts(Some(&node), domain);
        match authzid.map(BareJid::new) {
            None => Ok(user),
            Some(Ok(authzid)) if authzid == user => Ok(user),
            Some(_) => Err(SaslCondition::InvalidAuthzid.into()),
        }
    }

    pub(super) fn credentials(&mut self, reply: CredentialsReply, out: &mut Output<'_>) {
        let (start, user) = match std::mem::replace(&mut self.state, State::Login) {
            State::ScramKeys { start, user } => (start, user),
            other => return self.state = other,
        };
        let (credentials, known, bar) = match reply {
            CredentialsReply::Found { credentials, bar } => (credentials, true, bar),
            CredentialsReply::Unknown => {
                let fake = decoy(&self.config.decoy_secret, user.as_str(), self.config.scram_iterations);
                (Box::new(fake), false, None)
            }
            CredentialsReply::Unavailable => {
                return self.login_failed(&SaslCondition::TemporaryAuthFailure.into(), out);
            }
        };
        let keys = credentials.keys(start.hash());
        let (challenge, message) = start.challenge(keys);
        send_data("challenge", &message, out);
        self.state = State::ScramProof { challenge: Box::new(challenge), user, known, bar };
    }

    pub(super) fn password_checked(&mut self, verdict: PasswordVerdict, out: &mut Output<'_>) {
        let user = match std::mem::replace(&mut self.state, State::Login) {
            State::Password { user } => user,
            other => return self.state = other,
        };
        let condition = match verdict {
            PasswordVerdict::Right => {
                out.send(&Element::bare("success", ns::SASL));
                return self.logged_in(user, out);
            }
            PasswordVerdict::Wrong => SaslCondition::NotAuthorized,
            PasswordVerdict::Barred(bar) => bar.condition(),
            PasswordVerdict::Unavailable => SaslCondition::TemporaryAuthFailure,
        };
        self.login_failed(&condition.into(), out);
    }

    /// The proof was right. Fake keys cannot be proven; `known` is looked at all the same, lest a slip in
    /// how they are made let anybody in.
    fn proven(
        &mut self,
        user: BareJid,
        known: bool,
        bar: Option<Bar>,
        server_final: &[u8],
        out: &mut Output<'_>,
    ) -> Result<(), SaslFailure> {
        match bar {
            Some(bar) => Err(bar.condition().into()),
            None if !known => Err(SaslCondition::NotAuthorized.into()),
            None => {
                send_data("success", server_final, out);
                self.logged_in(user, out);
                Ok(())
            }
        }
    }

    fn logged_in(&mut self, user: BareJid, out: &mut Output<'_>) {
        out.push(Action::LoginEnded { mechanism: self.mechanism.take(), failure: None });
        self.restart(Some(user));
    }

    /// Tells the failure; after too many ends the stream (§6.4.5).
    fn login_failed(&mut self, failure: &SaslFailure, out: &mut Output<'_>) {
        out.send(&failure.to_element());
        let failure = Some(failure.condition);
        out.push(Action::LoginEnded { mechanism: self.mechanism.take(), failure });
        self.auth_failures += 1;
        if self.auth_failures >= self.config.max_auth_failures {
            let text = "too many failed logins";
            self.fail(StreamError::new(StreamCondition::PolicyViolation, text), out);
        }
    }
}

fn malformed(text: &'static str) -> SaslFailure {
    SaslFailure::new(SaslCondition::MalformedRequest, text)
}

/// The data of an element (§6.4.2): none at all, or base64 without a stray character, where `=` stands for
/// data of no length.
fn decode(text: &str) -> Result<Option<Vec<u8>>, SaslFailure> {
    match text {
        "" => Ok(None),
        "=" => Ok(Some(Vec::new())),
        _ => STANDARD.decode(text).map(Some).map_err(|_| SaslCondition::IncorrectEncoding.into()),
    }
}

fn decode_response(element: &Element) -> Result<Vec<u8>, SaslFailure> {
    decode(&element.text()).map(Option::unwrap_or_default)
}

fn send_data(name: &str, data: &[u8], out: &mut Output<'_>) {
    out.send(&Element::builder(name, ns::SASL).append(STANDARD.encode(data)).build());
}
