//! What is published, where, and what becomes of a service that answers with an error (XEP-0357 §8).
//!
//! An account is told of once at a time: what comes while its notification waits in the module's queue is in that one. And a
//! service is asked once at a time: what comes for the account before it has answered is in one more notification, behind
//! the answer. So whoever writes a thousand messages costs a service no more than it takes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, warn};

use althing_cluster::wire;
use althing_proto::form::{Field, Form};
use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, MessageType, Stanza, StanzaCondition};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::{MOST, PUSH, Place, Registration};
use crate::aside::{self, Job};
use crate::config;
use crate::metrics::Pushed;
use crate::modules::cut;
use crate::node::NodeContext;
use crate::pipeline::{Effects, Packet, Pass};
use crate::session::effect::{Effect, Later};
use crate::session::requests::NoAnswer;

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const SUMMARY: &str = "urn:xmpp:push:summary";

/// How long a service may take to answer. What it does not answer is not its refusal.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many errors in a row that may pass end a registration.
const PASSING: u32 = 10;

/// Most registrations whose errors a node counts; of further ones each that may pass is the first.
const COUNTED: usize = 10_000;

/// Longest text of a message in a notification, in bytes.
const MAX_TEXT: usize = 500;

/// Who is to be told: which services of an account.
type Who = (BareJid, Services);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Services {
    All,
    /// Those that this resource has named.
    Of(String),
    /// The one of that key.
    One(String),
}

/// What a node is about to tell of, and which services have failed.
#[derive(Default)]
pub struct Pushes {
    /// No more than the module's queue holds jobs.
    waiting: Mutex<HashMap<Who, Option<Stanza>>>,
    failed: Mutex<HashMap<Registered, u32>>,
    /// Who has not answered yet, and whether there is more to tell. No more than the node's own requests that are pending.
    asked: Mutex<HashMap<Registered, bool>>,
}

/// A registration: whose, and under which key.
type Registered = (BareJid, String);

impl Pushes {
    /// It was made anew: what has failed before was another one.
    pub fn begin_anew(&self, account: BareJid, key: String) {
        self.failed.lock().remove(&(account, key));
    }

    /// Whether a service may be asked; else there is more to tell when it has answered.
    fn begin(&self, registered: &Registered) -> bool {
        match self.asked.lock().entry(registered.clone()) {
            Entry::Vacant(free) => {
                free.insert(false);
                true
            }
            Entry::Occupied(mut asked) => {
                asked.insert(true);
                false
            }
        }
    }

    /// A service has answered, or is not asked after all; whether there is more to tell.
    fn end(&self, registered: &Registered) -> bool {
        self.asked.lock().remove(registered).unwrap_or_default()
    }
}

/// Tells the services of an account, or of one resource of it, that there is something for it: `message`, or what has not
/// arrived.
pub fn notify(node: &Arc<NodeContext>, account: &BareJid, resource: Option<&str>, message: Option<&Stanza>) {
    if !node.config().push.enabled {
        return;
    }
    let services = resource.map_or(Services::All, |resource| Services::Of(resource.to_owned()));
    notify_at(node, (account.clone(), services), message);
}

fn notify_at(node: &Arc<NodeContext>, who: Who, message: Option<&Stanza>) {
    let account = who.0.clone();
    if node.pushes.waiting.lock().insert(who.clone(), message.cloned()).is_some() {
        return;
    }
    let waiting = Waiting { node: Arc::clone(node), who, taken: false };
    let Some(member) = node.modules.members().iter().find(|member| member.name == super::SPEC.name) else {
        return;
    };
    let nothing = || {
        let element = Element::bare("message", ns::CLIENT);
        Stanza::from_parts(Kind::Message(MessageType::Normal), None, Some(account.clone().into()), element)
    };
    let packet = Packet::new(message.cloned().unwrap_or_else(nothing), Pass::Account(account.clone()));
    let job = Job::new(Arc::clone(&member.queue), packet, Box::pin(publish(waiting)));
    if aside::submit(node, job, None).is_err() {
        // The message is kept all the same: its sender hears of nothing.
        node.metrics.pushed(Pushed::Dropped);
    }
}

/// That somebody is about to be told. Dropped before its turn, the next message begins anew.
struct Waiting {
    node: Arc<NodeContext>,
    who: Who,
    taken: bool,
}

impl Waiting {
    fn take(&mut self) -> Option<Stanza> {
        self.taken = true;
        self.node.pushes.waiting.lock().remove(&self.who).flatten()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.taken {
            self.take();
        }
    }
}

async fn publish(mut waiting: Waiting) -> Effects {
    let message = waiting.take();
    let (node, (account, services)) = (Arc::clone(&waiting.node), &waiting.who);
    let rows = match node.storage.private.list(account, PUSH, None, MOST).await {
        Ok(rows) => rows,
        Err(error) => {
            warn!(jid = %account, %error, "who is to be notified is not known");
            node.metrics.pushed(Pushed::Dropped);
            return Effects::new();
        }
    };
    let registered = rows.into_iter().filter_map(|(key, row)| {
        let registration: Registration = wire::decode(&row).ok()?;
        let wanted = match services {
            Services::All => true,
            Services::Of(resource) => registration.resource.as_ref() == Some(resource),
            Services::One(wanted) => key == *wanted,
        };
        wanted.then_some((Place::of_key(&key)?, registration, row))
    });
    let registered: Vec<_> = registered.collect();
    if registered.is_empty() {
        return Effects::new();
    }
    let waits = node.storage.inbox.summary(account).await.ok().map(|summary| summary.messages);
    let form = summary(&node.config().push, waits, message.as_ref());
    let mut effects = Effects::new();
    let Ok(server) = Jid::new(account.domain().as_str()) else { return effects };
    for (place, registration, row) in registered {
        let registered = (account.clone(), place.key());
        if !node.pushes.begin(&registered) {
            continue;
        }
        let payload = notification(&place, &registration, &form);
        let begun = node.requests.begin((server.clone(), place.jid.clone()), IqType::Set, payload, PATIENCE);
        let Ok((iq, answer)) = begun else {
            node.pushes.end(&registered);
            node.metrics.pushed(Pushed::Dropped);
            continue;
        };
        let own = Arc::clone(&node);
        answer.then(&node, move |outcome| {
            let more = own.pushes.end(&registered);
            let mut effects = answered(&own, registered.clone(), row, outcome);
            if more {
                effects.push(tell_the_rest(&own, registered));
            }
            effects
        });
        debug!(jid = %waiting.who.0, "a push notification");
        node.metrics.pushed(Pushed::Sent);
        effects.push(Effect::Route(iq));
    }
    effects
}

/// §8: the summary. By itself it says how much waits, and nothing of what it is or whom it is from (§10).
fn summary(config: &config::Push, waits: Option<u32>, message: Option<&Stanza>) -> Form {
    let mut form = Form::submit().typed(SUMMARY);
    if let Some(waits) = waits {
        form = form.with(Field::text("message-count").value(waits.to_string()));
    }
    if let Some(from) = message.and_then(Stanza::from).filter(|_| config.sender) {
        form = form.with(Field::jid("last-message-sender").value(from.to_string()));
    }
    let text = message.and_then(|message| message.element().get_child("body", ns::CLIENT)).map(Element::text);
    if let Some(text) = text.filter(|_| config.body) {
        form = form.with(Field::text("last-message-body").value(cut(&text, MAX_TEXT)));
    }
    form
}

fn notification(place: &Place, registration: &Registration, summary: &Form) -> Element {
    let notification = Element::builder("notification", PUSH).append(summary.to_element());
    let item = Element::builder("item", PUBSUB).append(notification.build());
    let mut publish = Element::builder("publish", PUBSUB);
    if let Some(node) = &place.node {
        publish = publish.set(name!("node"), node.as_str());
    }
    let mut pubsub = Element::builder("pubsub", PUBSUB).append(publish.append(item.build()).build());
    if let Ok(options) = Element::from_reader(&*registration.options) {
        pubsub = pubsub.append(Element::builder("publish-options", PUBSUB).append(options).build());
    }
    pubsub.build()
}

/// PURE: whether an error is about the moment, and not about the registration.
fn is_passing(error: &Stanza) -> bool {
    let Some(error) = error.element().get_child("error", ns::CLIENT) else { return false };
    let passing = [
        StanzaCondition::ResourceConstraint,
        StanzaCondition::RemoteServerTimeout,
        // A component that is not attached now.
        StanzaCondition::ServiceUnavailable,
        StanzaCondition::RecipientUnavailable,
        StanzaCondition::InternalServerError,
    ];
    error.attr("type") == Some("wait")
        || passing.iter().any(|known| error.has_child(known.name(), ns::STANZA_ERRORS))
}

/// Tells a service of what has come before it answered, if that waits still. The others know it.
fn tell_the_rest(node: &Arc<NodeContext>, (account, key): Registered) -> Effect {
    let node = Arc::clone(node);
    Effect::Later(Later(Box::pin(async move {
        if node.storage.inbox.summary(&account).await.is_ok_and(|waits| waits.messages > 0) {
            notify_at(&node, (account, Services::One(key)), None);
        }
        Effects::new()
    })))
}

/// §8.1: an error disables the registration, one that may pass when it is one of many in a row.
fn answered(
    node: &Arc<NodeContext>,
    place: Registered,
    row: Vec<u8>,
    outcome: Result<Stanza, NoAnswer>,
) -> Effects {
    let mut failed = node.pushes.failed.lock();
    match outcome {
        Ok(_) => {
            failed.remove(&place);
            return Effects::new();
        }
        Err(NoAnswer::TimedOut) => {
            node.metrics.pushed(Pushed::Failed);
            return Effects::new();
        }
        Err(NoAnswer::Error(error)) if is_passing(&error) => {
            node.metrics.pushed(Pushed::Failed);
            let room = failed.len() < COUNTED;
            let count = failed.get(&place).copied().unwrap_or_default() + 1;
            if count < PASSING {
                if room || count > 1 {
                    failed.insert(place, count);
                }
                return Effects::new();
            }
        }
        Err(NoAnswer::Error(_)) => {}
    }
    failed.remove(&place);
    drop(failed);
    let (node, (account, key)) = (Arc::clone(node), place);
    vec![Effect::Later(Later(Box::pin(async move {
        let private = &node.storage.private;
        // Enabled anew meanwhile it is another one.
        let same = private.get(&account, PUSH, &key).await.is_ok_and(|found| found.as_ref() == Some(&row));
        if same {
            match private.delete(&account, PUSH, &key).await {
                Ok(_) => {
                    debug!(jid = %account, "a push service has refused a notification: it gets no more");
                    node.metrics.pushed(Pushed::Disabled);
                }
                Err(error) => warn!(jid = %account, %error, "a push service that refuses stays enabled"),
            }
        }
        Effects::new()
    })))]
}

#[cfg(test)]
mod tests;
