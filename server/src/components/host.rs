//! The task that runs one component, inside the process or attached from outside: letters in, effects out.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::debug;

use althing_proto::disco::{Info, Item};
use althing_proto::jid::{FullJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, PresenceType, Stanza, StanzaCondition};

use super::attach::{self, attach};
use super::balance::lane_of;
use super::inbox::Handed;
use super::registry::Origin;
use super::seen::ComponentSeen;
use super::{Component, ComponentHandle, Ending, Letter};
use crate::delivery::drive;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::session::effect::Effect;
use crate::session::losses::{self, Lost};

/// How long the last words may wait for the route to go.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Wait of a component that wants no ticks.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// Attaches a component of this process, and runs it beside the caller.
///
/// # Errors
/// As [`attach`].
pub async fn start(
    node: &Arc<NodeContext>,
    domain: &str,
    component: impl Component,
) -> anyhow::Result<Arc<ComponentHandle>> {
    let origin = Origin { peer: None, description: component.description() };
    let handle = attach(node, domain, false, origin).await?;
    tokio::spawn(run(Arc::clone(node), Arc::clone(&handle), component));
    Ok(handle)
}

/// Runs an attached component until it ends, and detaches it.
pub async fn run(node: Arc<NodeContext>, handle: Arc<ComponentHandle>, mut component: impl Component) {
    let mut host = Host {
        node: &node,
        handle: &handle,
        seen: ComponentSeen::default(),
        letters: VecDeque::new(),
        is_stuck: false,
    };
    let reason = loop {
        if let Err(reason) = host.step(&mut component).await {
            break reason;
        }
    };
    let letters = std::mem::take(&mut host.letters);
    let mut detaching = tokio::spawn({
        let (node, handle) = (Arc::clone(&node), Arc::clone(&handle));
        async move { attach::detach(&node, &handle, letters).await }
    });
    if matches!(reason, Ending::Gone(_)) {
        // Who ends in order sees by the answer that nothing comes to him any more; but not at any price.
        let _ = timeout(LAST_WORDS, &mut detaching).await;
    }
    component.end(&reason).await;
    handle.detached().await;
}

struct Host<'a> {
    node: &'a Arc<NodeContext>,
    handle: &'a Arc<ComponentHandle>,
    seen: ComponentSeen,
    /// What was taken out of the inbox and is not handled.
    letters: VecDeque<Letter>,
    /// The component took none of them: it is not asked again before something happens.
    is_stuck: bool,
}

impl Host<'_> {
    /// One event: letters, a word of the server, or the end of the component's patience.
    async fn step(&mut self, component: &mut impl Component) -> Result<(), Ending> {
        let patience = component.patience().unwrap_or(NEVER);
        let handed = if self.letters.is_empty() || self.is_stuck {
            tokio::select! {
                biased;
                reason = self.handle.asked_to_end() => return Err(reason),
                handed = self.handle.inbox.take() => Some(handed),
                () = sleep(patience) => None,
            }
        } else {
            self.handle.inbox.take_now()
        };
        let is_tick = handed.is_none() && (self.letters.is_empty() || self.is_stuck);
        // Noted before the next wait: nothing of it is lost when the component ends there.
        match handed {
            Some(Handed::Letters(letters)) => {
                for letter in &letters {
                    self.see(letter);
                }
                self.letters.extend(letters);
            }
            Some(Handed::Lost(lost)) => self.note_lost(&lost),
            Some(Handed::Configured(config)) => {
                let bounds = &config.components;
                self.handle.inbox.set_bounds(bounds.inbox_stanzas, bounds.inbox_bytes);
                component.configure(&config)?;
            }
            Some(Handed::Asked(answer)) => {
                // Who asked may have gone.
                let _ = answer.send(component.statistics());
            }
            None => {}
        }
        let lease = &self.node.lease;
        // Counted, not seen: it may be over even if the node serves again.
        if (!lease.holds() && !lease.serving().await) || lease.losses() != self.handle.losses {
            return Err(Ending::LeaseLost);
        }
        if is_tick {
            let effects = component.tick(self.node).await?;
            drive(self.node, effects).await;
        }
        if let Some(about) = &self.handle.description {
            let answers = self.discover(component, about);
            drive(self.node, answers).await;
        }
        if self.letters.is_empty() { Ok(()) } else { self.hand_over(component).await }
    }

    /// Sessions that were lost with their node: the component gets their unavailable presence (RFC 6121 §4.5.2).
    fn note_lost(&mut self, lost: &Lost) {
        let routes = &self.node.routes;
        let is_back = |jid: &FullJid| routes.locate(jid).is_some_and(|route| route.priority.is_some());
        for (from, seen_at) in self.seen.lost(lost, is_back) {
            let lane = lane_of(Some(&from));
            for to in seen_at {
                let letter = Letter { lane, stanza: losses::unavailable(&from, to) };
                self.handle.inbox.count_in(&letter);
                self.letters.push_back(letter);
            }
        }
    }

    async fn hand_over(&mut self, component: &mut impl Component) -> Result<(), Ending> {
        let before: Vec<usize> = self.letters.iter().map(Letter::bytes).collect();
        let result = tokio::select! {
            biased;
            result = component.receive(&mut self.letters, self.node) => result,
            reason = self.handle.asked_to_end() => Err(reason),
        };
        let handled = before.len().saturating_sub(self.letters.len());
        self.handle.inbox.done(handled, before.iter().take(handled).sum());
        self.is_stuck = handled == 0;
        drive(self.node, result?).await;
        Ok(())
    }

    /// Answers what service discovery asks of the component itself (XEP-0030 §3, §4): those letters are taken out.
    fn discover(&mut self, component: &impl Component, about: &Info) -> Effects {
        let (handle, mut answers) = (self.handle, Effects::new());
        self.letters.retain(|letter| {
            let Some(answer) = answer(component, about, handle.domain(), &letter.stanza) else { return true };
            handle.inbox.done(1, letter.bytes());
            answers.push(Effect::Route(answer));
            false
        });
        answers
    }

    fn see(&mut self, Letter { stanza, .. }: &Letter) {
        let Kind::Presence(kind @ (PresenceType::Available | PresenceType::Unavailable)) = stanza.kind()
        else {
            return;
        };
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return };
        // Of other components nobody says when they are lost.
        if from.resource().is_none() || !self.node.serves(from.domain().as_str()) {
            return;
        }
        let hash = self.node.seen_keys.hash_one(from.as_str());
        if kind == PresenceType::Unavailable {
            self.seen.unavailable(hash, to);
        } else if !self.seen.available(hash, to) {
            debug!(jid = %self.handle.jid, "more sessions are available than a component remembers");
        }
    }
}

/// The answer to a question of service discovery to the domain itself; `None` for all else.
fn answer(component: &impl Component, about: &Info, domain: &str, stanza: &Stanza) -> Option<Stanza> {
    let query = stanza.payload().filter(|_| stanza.kind() == Kind::Iq(IqType::Get))?;
    let is_info = query.is("query", ns::DISCO_INFO);
    if stanza.to().map(Jid::as_str) != Some(domain) || !(is_info || query.is("query", ns::DISCO_ITEMS)) {
        return None;
    }
    if query.attr("node").is_some() {
        return stanza.error(StanzaCondition::ItemNotFound);
    }
    if !is_info {
        return Some(stanza.result(Some(Item::list(None, &component.items()))));
    }
    let mut about = about.clone();
    about.features.extend([ns::DISCO_INFO, ns::DISCO_ITEMS].map(str::to_owned));
    Some(stanza.result(Some(about.to_element(None))))
}
