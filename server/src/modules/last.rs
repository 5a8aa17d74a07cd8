//! XEP-0012: Last Activity. When an account was here last, how long the server runs; a client's idle time is its own
//! affair, if the asker may see its presence.

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::Kinds;
use althing_proto::stanza::{IqType, Kind, Stanza, StanzaCondition};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::delivery::probes;
use crate::pipeline::packet::is_of_account;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Pass, View, refusal};
use crate::session::effect::Effect;
use crate::storage::profile::Logout;
use crate::storage::{Storage, StorageError};

/// The module.
pub(super) const MODULE: Last = Last;

const SPEC: Spec = Spec { name: "last", document: "XEP-0012", version: "2.0", title: "Last Activity" };

pub(super) struct Last;

impl Module for Last {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let accounts = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[Interest::iq_get(ns::LAST, At::SERVER.or(accounts).or(At::OUTBOUND).or(At::INBOUND))]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::LAST, at: At::SERVER.or(At::OWN_ACCOUNT) }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        debug_assert_eq!(packet.stanza.kind(), Kind::Iq(IqType::Get));
        match &packet.pass {
            // §5.
            Pass::Server => {
                let running = view.now.since(view.node.started).as_secs();
                Outcome::reply(packet.stanza.result(Some(query(running, ""))))
            }
            Pass::Account(account) => of_account(packet, account, view),
            Pass::Outbound => to_resource(packet, view),
            Pass::Inbound => inbound(packet, view),
        }
    }
}

/// §3: of an account, for those who may see its presence; for others the same whether or not it exists.
fn of_account(packet: &Packet, account: &BareJid, view: &View<'_>) -> Outcome {
    let Some(asker) = packet.stanza.from().cloned() else { return Outcome::Done(Vec::new()) };
    let (node, account, packet) = (view.node.clone(), account.clone(), packet.clone());
    Outcome::aside(async move {
        match may_see(&node.storage, &account, &asker).await {
            Ok(true) => {
                // Whoever hides is gone since then (XEP-0186 §3.1.1 rule 8).
                let own = is_of_account(&asker, &account);
                if own || probes::any_shown(&node, &account, &asker).await {
                    return vec![Effect::Route(packet.stanza.result(Some(query(0, ""))))];
                }
                match node.storage.logouts.last(&account).await {
                    Ok(logout) => answer(&packet, logout, node.now()),
                    Err(error) => storage_failed(&packet, &error),
                }
            }
            Ok(false) => refusal(&packet, StanzaCondition::Forbidden),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// §3: how long ago, and the status of the last unavailable presence.
fn answer(packet: &Packet, logout: Option<Logout>, now: Timestamp) -> Effects {
    let Some(logout) = logout else {
        // The account has never been here.
        return refusal(packet, StanzaCondition::ItemNotFound);
    };
    let status = Stanza::from_standalone(&logout.presence)
        .and_then(|presence| Some(presence.element().get_child("status", ns::CLIENT)?.text()));
    let query = query(now.since(logout.at).as_secs(), &status.unwrap_or_default());
    vec![Effect::Route(packet.stanza.result(Some(query)))]
}

/// §4: to one resource of this server. Who may not see it is told so before anybody looks whether it is there.
fn to_resource(packet: &Packet, view: &View<'_>) -> Outcome {
    let (Some(to), Some(session)) = (packet.stanza.to(), view.session) else { return Outcome::Pass };
    let (account, asker) = (to.to_bare(), Jid::from(session.jid().clone()));
    let other = to.resource().is_some()
        && account != *session.account()
        && view.node.serves(account.domain().as_str());
    if !other {
        return Outcome::Pass;
    }
    let (storage, packet) = (view.node.storage.clone(), packet.clone());
    Outcome::later(async move {
        match may_see(&storage, &account, &asker).await {
            Ok(true) => vec![Effect::Route(packet.stanza.clone())],
            Ok(false) => refusal(&packet, StanzaCondition::Forbidden),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// §4: at the resource itself, whoever asks, from wherever.
fn inbound(packet: &Packet, view: &View<'_>) -> Outcome {
    let (Some(from), Some(session)) = (packet.stanza.from(), view.session) else { return Outcome::Pass };
    if is_of_account(from, session.account()) {
        return Outcome::Pass;
    }
    if !session.subscription(&from.to_bare()).is_from() {
        return Outcome::refuse(packet, StanzaCondition::Forbidden);
    }
    // Kept from who asks, the resource looks as if it were not there.
    if session.may_be_seen_by(from) {
        return Outcome::Pass;
    }
    Outcome::refuse(packet, StanzaCondition::ServiceUnavailable)
}

/// §7: only who has a subscription, and from whom no privacy list keeps the presence.
async fn may_see(storage: &Storage, account: &BareJid, asker: &Jid) -> Result<bool, StorageError> {
    if is_of_account(asker, account) {
        return Ok(true);
    }
    let judged = storage.privacy.judge(account, asker).await?;
    let subscribed = judged.item.is_some_and(|item| item.subscription.is_from());
    Ok(subscribed && !judged.denied.meets(Kinds::PRESENCE_OUT))
}

fn query(seconds: u64, status: &str) -> Element {
    let query = Element::builder("query", ns::LAST).set(name!("seconds"), seconds.to_string());
    if status.is_empty() { query.build() } else { query.append(status).build() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_counts_from_the_last_logout_and_bears_its_status() {
        let get = "<iq xmlns='jabber:client' type='get' id='l' from='a@b/c' to='d@b'><query xmlns='jabber:iq:last'/></iq>";
        let stanza = Stanza::parse(get.parse().unwrap()).unwrap();
        let account = BareJid::new("d@b").unwrap();
        let packet = Packet::new(stanza, Pass::Account(account.clone()));
        let logout = Logout {
            user: account,
            at: Timestamp::from_millis(1_000_500),
            presence: "<presence xmlns='jabber:client' type='unavailable'><status>Heading &lt;Home</status></presence>".into(),
        };
        let text = |logout, now| match &answer(&packet, logout, Timestamp::from_millis(now))[..] {
            [Effect::Route(answer)] => String::from_utf8(answer.to_bytes().to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        let answered = text(Some(logout.clone()), 1_903_500);
        assert!(
            answered.contains("<query xmlns='jabber:iq:last' seconds='903'>Heading &lt;Home</query>"),
            "{answered}"
        );
        assert!(text(Some(logout), 5).contains("seconds='0'"), "a clock that went back");
        assert!(text(None, 5).contains("item-not-found"));
    }
}
