//! Figures of a running node, read at once: what an operator asks for over XMPP (XEP-0039, XEP-0133) or at a console.
//! What is watched over time is a metric (`metrics/table.rs`).
//!
//! Who adds figures of their own:
//!
//! - a module overrides `Module::statistics`; what every module has (handled, waiting, dropped) is here without it;
//! - a component of this server overrides `Component::statistics`: it is `component/DOMAIN/NAME`, those of several
//!   connections of a domain added up;
//! - anything else calls [`Statistics::add`] of `NodeContext::statistics` once, when it is made.
//!
//! Names are paths of lower case, as in XEP-0039: `sessions`, `module/ping/handled`. A source must be cheap, and
//! answer from memory.

use std::borrow::Cow;

use parking_lot::RwLock;

use althing_proto::stanza::{IqType, Kind, MessageType, PresenceType};

use crate::components;
use crate::metrics::Direction;
use crate::node::NodeContext;

/// One figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistic {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it counts: `seconds`, `sessions`, `packets`.
    pub units: &'static str,
    /// Its value now.
    pub value: u64,
}

impl Statistic {
    /// A figure.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, units: &'static str, value: u64) -> Self {
        Statistic { name: name.into(), units, value }
    }
}

/// Reads the figures of one part of the node.
pub type Source = Box<dyn Fn(&NodeContext) -> Vec<Statistic> + Send + Sync>;

/// The parts of a node that have figures of their own, beside its modules.
#[derive(Default)]
pub struct Statistics(RwLock<Vec<Source>>);

impl Statistics {
    /// From now on these figures are among the node's.
    pub fn add(&self, source: Source) {
        self.0.write().push(source);
    }
}

/// All figures of the node, as they are now.
#[must_use]
pub fn statistics(node: &NodeContext) -> Vec<Statistic> {
    let mut all = own(node);
    for member in node.modules.members() {
        let numbers = member.counts.numbers();
        let figure =
            |what: &str, units, value| Statistic::new(format!("module/{}/{what}", member.name), units, value);
        all.push(figure("handled", "packets", numbers.handled));
        all.push(figure("queue", "packets", member.queue.len() as u64));
        all.push(figure("dropped", "packets", numbers.dropped));
        all.push(figure("waited", "packets", numbers.waited));
        all.push(figure("waited-time", "milliseconds", millis(numbers.waited_seconds)));
        all.push(figure("timed", "calls", numbers.timed));
        all.push(figure("timed-time", "microseconds", micros(numbers.timed_seconds)));
        all.extend(member.module.statistics(node));
    }
    let sources = node.statistics.0.read();
    all.extend(sources.iter().flat_map(|source| source(node)));
    all
}

/// All figures of the node with those of its components, which are asked for theirs.
pub async fn snapshot(node: &NodeContext) -> Vec<Statistic> {
    let mut all = statistics(node);
    for (domain, figures) in components::statistics(node).await {
        all.extend(figures.into_iter().map(|figure| {
            // The first word says what is counted: `stanzas_taken`.
            let units = figure.name.split('_').next().unwrap_or(figure.name);
            Statistic::new(format!("component/{domain}/{}", figure.name), units, figure.value)
        }));
    }
    all
}

/// The figures of the node itself.
fn own(node: &NodeContext) -> Vec<Statistic> {
    let mut all = vec![
        Statistic::new("uptime", "seconds", node.now().since(node.started).as_secs()),
        Statistic::new("sessions", "sessions", node.sessions.len() as u64),
        Statistic::new("sessions/cluster", "sessions", node.routes.sessions() as u64),
        Statistic::new("connections", "connections", node.connections.open() as u64),
        Statistic::new("storage/queue", "commands", node.storage.engine.queued() as u64),
    ];
    let kinds = [
        ("message", Kind::Message(MessageType::Normal)),
        ("presence", Kind::Presence(PresenceType::Available)),
        ("iq", Kind::Iq(IqType::Get)),
    ];
    for (direction, word) in [(Direction::In, "in"), (Direction::Out, "out")] {
        for (name, kind) in kinds {
            let value = node.metrics.stanzas(kind, direction);
            all.push(Statistic::new(format!("stanzas/{word}/{name}"), "packets", value));
        }
    }
    all
}

fn millis(seconds: f64) -> u64 {
    micros(seconds) / 1000
}

fn micros(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    /// T3, T17: any part of the node has figures, and they are there at run time.
    #[actix_rt::test]
    async fn t3_t17_every_part_has_its_figures() {
        let node = Arc::new(NodeContext::for_tests());
        node.statistics.add(Box::new(|node| {
            vec![Statistic::new("component/rooms", "rooms", node.sessions.len() as u64 + 7)]
        }));
        node.metrics.stanza(Kind::Message(MessageType::Chat), Direction::In);
        let all = statistics(&node);
        let value = |name: &str| all.iter().find(|figure| figure.name == name).map(|figure| figure.value);
        assert_eq!(value("stanzas/in/message"), Some(1));
        assert_eq!(value("stanzas/out/message"), Some(0));
        assert_eq!(value("component/rooms"), Some(7));
        assert_eq!(value("sessions"), Some(0));
        for member in node.modules.members() {
            assert_eq!(value(&format!("module/{}/queue", member.name)), Some(0), "{}", member.name);
        }
        let names: BTreeSet<&str> = all.iter().map(|figure| &*figure.name).collect();
        assert_eq!(names.len(), all.len(), "a name stands for one figure");
    }
}
