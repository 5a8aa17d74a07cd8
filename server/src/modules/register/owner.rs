//! What the owner of an account does with it in band, after login: look at the registration, change the password
//! (XEP-0077 §3.3), cancel it (§3.2).

use std::sync::Arc;

use tokio::sync::oneshot;

use althing_proto::form::{Form, FormKind};
use althing_proto::jid::{self, BareJid, NodePart};
use althing_proto::ns;
use althing_proto::sasl::Secret;
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

use super::removal::{remove, sessions_end};
use crate::auth::{CreateError, set_password};
use crate::delivery;
use crate::modules::roster::storage_failed;
use crate::node::NodeContext;
use crate::pipeline::{Outcome, Packet, refusal};
use crate::session::effect::Effect;
use crate::storage::StorageError;

/// What a set asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// To cancel the registration.
    Remove,
    /// Another password.
    Password {
        /// For whom, as the client wrote it.
        username: String,
        /// The new one.
        password: Secret,
    },
}

/// Answers the owner of `account`.
pub(super) fn process(packet: &Packet, account: &BareJid, node: &Arc<NodeContext>) -> Outcome {
    if packet.stanza.kind() != Kind::Iq(IqType::Set) {
        return Outcome::reply(packet.stanza.result(Some(registration(account))));
    }
    let settings = &node.config().registration;
    // §3.2, §3.3: what nobody is allowed comes before what is wrong with the request.
    match packet.stanza.payload().map_or(Err("a request has a query"), wish) {
        Ok(Wish::Remove) if settings.removal => cancel(packet, account, node),
        Ok(Wish::Password { username, password }) if settings.password_change => {
            change(packet, account, &username, password, node)
        }
        Ok(_) => Outcome::refuse(packet, StanzaCondition::NotAllowed),
        Err(text) => Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text)),
    }
}

/// §3.1: that the account is registered, and under which name.
fn registration(account: &BareJid) -> Element {
    let name = account.node().map_or("", |node| node.as_str());
    let text = "You are registered. A new password takes the place of the old one.";
    Element::builder("query", ns::REGISTER)
        .append(Element::builder("instructions", ns::REGISTER).append(text))
        .append(Element::bare("registered", ns::REGISTER))
        .append(Element::builder("username", ns::REGISTER).append(name))
        .append(Element::bare("password", ns::REGISTER))
        .build()
}

fn wish(query: &Element) -> Result<Wish, &'static str> {
    let form = Form::find(query).map_err(|_| "the form cannot be read")?;
    // §4: a form comes before the plain fields.
    if let Some(form) = form {
        if form.kind != FormKind::Submit {
            return Err("a form is submitted");
        }
        let value = |var| form.value(var).unwrap_or_default().to_owned();
        return match form.form_type() {
            Some("jabber:iq:register:cancel") => Ok(Wish::Remove),
            Some(ns::REGISTER | "jabber:iq:register:changepassword") => {
                complete(value("username"), value("password"))
            }
            _ => Err("the form is no such form"),
        };
    }
    if query.has_child("remove", ns::REGISTER) {
        if query.children().count() > 1 {
            return Err("<remove/> stands alone");
        }
        return Ok(Wish::Remove);
    }
    let field = |name| query.get_child(name, ns::REGISTER).map(Element::text).unwrap_or_default();
    complete(field("username"), field("password"))
}

/// §3.3: without both nothing changes.
fn complete(username: String, password: String) -> Result<Wish, &'static str> {
    if username.is_empty() || password.is_empty() {
        return Err("username and password are needed");
    }
    Ok(Wish::Password { username, password: Secret::new(password) })
}

/// §3.3: the keys for all mechanisms are made anew.
fn change(
    packet: &Packet,
    account: &BareJid,
    username: &str,
    password: Secret,
    node: &Arc<NodeContext>,
) -> Outcome {
    if !names(username, account) {
        // §3.1.1: who has an account makes no second one.
        let text = "log out to register another account";
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::NotAcceptable, text));
    }
    if !node.registration.admit_password(node, account) {
        let text = "too many changes of the password: wait";
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text));
    }
    let (node, account, packet) = (Arc::clone(node), account.clone(), packet.clone());
    Outcome::aside(async move {
        match set_password(&node, &account, password).await {
            Ok(true) => {
                tracing::info!(jid = %account, "password changed in band");
                vec![Effect::Route(packet.stanza.result(None))]
            }
            Ok(false) => refusal(&packet, StanzaCondition::RegistrationRequired),
            Err(error @ CreateError::Password(_)) => {
                refusal(&packet, StanzaError::new(StanzaCondition::NotAcceptable, error.to_string()))
            }
            Err(CreateError::Storage(error)) => storage_failed(&packet, &error),
            Err(_) => refusal(&packet, StanzaCondition::InternalServerError),
        }
    })
}

/// Whether `username` is the local part of `account`, or its whole address.
fn names(username: &str, account: &BareJid) -> bool {
    let local = NodePart::new(username).is_ok_and(|local| account.node() == Some(&*local));
    local || jid::parse(username).is_ok_and(|jid| jid == *account)
}

/// §3.2. Goes on when the client is gone meanwhile.
fn cancel(packet: &Packet, account: &BareJid, node: &Arc<NodeContext>) -> Outcome {
    let (node, account, packet) = (Arc::clone(node), account.clone(), packet.clone());
    let (sender, removed) = oneshot::channel();
    Outcome::later(async move {
        let user = account.clone();
        tokio::spawn(async move {
            let removed = remove(&node, &account).await;
            if matches!(removed, Ok(true)) {
                tracing::info!(jid = %account, "account removed in band");
            }
            if let Err(Ok(true)) = sender.send(removed) {
                delivery::drive(&node, vec![sessions_end(&account)]).await;
            }
        });
        match removed.await.unwrap_or(Err(StorageError::Closed)) {
            // The answer before the end of the stream.
            Ok(true) => vec![Effect::Route(packet.stanza.result(None)), sessions_end(&user)],
            Ok(false) => refusal(&packet, StanzaCondition::RegistrationRequired),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

#[cfg(test)]
mod tests {
    use althing_proto::stanza::Stanza;

    use super::*;
    use crate::pipeline::Pass;

    fn asked(xml: &str) -> Result<Wish, &'static str> {
        wish(&format!("<query xmlns='jabber:iq:register'>{xml}</query>").parse().unwrap())
    }

    fn password(username: &str) -> Result<Wish, &'static str> {
        Ok(Wish::Password { username: username.to_owned(), password: Secret::new("new") })
    }

    #[test]
    fn a_wish_is_whole_or_it_is_none() {
        assert_eq!(asked("<remove/>"), Ok(Wish::Remove));
        assert_eq!(asked("<username>bill</username><password>new</password>"), password("bill"));
        for part in [
            "",
            "<remove/><username>bill</username>",
            "<username>bill</username>",
            "<password>new</password>",
        ] {
            assert!(asked(part).is_err(), "{part}");
        }
        assert!(asked("<username>bill</username><password/>").is_err());
    }

    #[actix_rt::test]
    async fn what_the_operator_does_not_want_nobody_may() {
        let node = NodeContext::for_tests();
        node.configure(|config| config.registration.password_change = false);
        node.configure(|config| config.registration.removal = false);
        let node = Arc::new(node);
        let account = BareJid::new("bill@localhost").unwrap();
        for query in ["<remove/>", "<username>bill</username><password>new</password>"] {
            let xml = format!(
                "<iq xmlns='jabber:client' type='set' id='r' from='bill@localhost/x'>\
                 <query xmlns='jabber:iq:register'>{query}</query></iq>"
            );
            let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
            let packet = Packet::new(stanza, Pass::Account(account.clone()));
            match process(&packet, &account, &node) {
                Outcome::Done(effects) => match &effects[..] {
                    [Effect::Route(answer)] => {
                        assert_eq!(answer.error_condition(), Some(StanzaCondition::NotAllowed), "{query}");
                    }
                    other => panic!("{other:?}"),
                },
                _ => panic!("{query} is taken up"),
            }
        }
    }

    #[test]
    fn a_form_comes_before_the_fields() {
        let form = |kind: &str, fields: &str| {
            let form_type = format!("<field var='FORM_TYPE'><value>jabber:iq:register{kind}</value></field>");
            asked(&format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>"))
        };
        let fields = "<field var='username'><value>bill@a</value></field><field var='password'><value>new</value></field>";
        assert_eq!(form(":changepassword", fields), password("bill@a"));
        assert_eq!(form("", fields), password("bill@a"));
        assert_eq!(form(":cancel", fields), Ok(Wish::Remove));
        assert!(form(":other", fields).is_err() && form("", "").is_err());
    }

    #[test]
    fn a_name_is_the_local_part_or_the_address() {
        let account = BareJid::new("bill@a").unwrap();
        assert!(names("bill", &account) && names("Bill", &account) && names("bill@a", &account));
        assert!(!names("bob", &account) && !names("bill@b", &account) && !names("", &account));
    }
}
