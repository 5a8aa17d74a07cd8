//! The route table against a naive model: whatever the commands, both say the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::collections::BTreeMap;

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::origin::Origin;
use althing_cluster::routes::command::{
    Bind, Detach, Expire, Move, NodeDown, NodeUp, Priority, RouteBatch, RouteCommand, RouteReply, Unbind,
};
use althing_cluster::routes::{AppliedBatch, BindIndex, NodeState, Route, RouteEvent, RouteTable};
use althing_cluster::wire;
use althing_proto::jid::{BareJid, FullJid};
use proptest::prelude::*;

/// One list of sessions and one of nodes: every rule as a filter over them.
#[derive(Default)]
struct Model {
    sessions: Vec<(FullJid, Route)>,
    /// Latest start and whether it is up.
    nodes: BTreeMap<NodeId, (Incarnation, bool)>,
}

impl Model {
    fn up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.nodes.get(&node) == Some(&(incarnation, true))
    }

    fn take(&mut self, mut is_meant: impl FnMut(&FullJid, &Route) -> bool) -> Vec<(FullJid, Route)> {
        let sessions = std::mem::take(&mut self.sessions);
        let (taken, left) = sessions.into_iter().partition(|(jid, route)| is_meant(jid, route));
        self.sessions = left;
        taken
    }

    fn node(&mut self, node: NodeId, incarnation: Incarnation, is_up: bool) -> RouteReply {
        let (known, was_up) = self.nodes.get(&node).copied().unwrap_or((Incarnation(0), false));
        let is_new = known < incarnation || (known == incarnation && was_up && !is_up);
        if !is_new {
            let again = is_up && was_up && known == incarnation;
            return if again { RouteReply::Ended(vec![]) } else { RouteReply::Stale };
        }
        self.nodes.insert(node, (incarnation, is_up));
        RouteReply::Ended(self.take(|_, route| route.node == node && route.resumable_until.is_none()))
    }

    fn change(&mut self, jid: &FullJid, index: BindIndex, change: impl Fn(&mut Route)) -> RouteReply {
        for (full, route) in &mut self.sessions {
            if full == jid && route.index == index {
                if self.nodes.get(&route.node) != Some(&(route.incarnation, true)) {
                    return RouteReply::Fenced;
                }
                change(route);
                return RouteReply::Changed;
            }
        }
        RouteReply::Stale
    }

    fn apply(&mut self, at: BindIndex, command: RouteCommand) -> RouteReply {
        let ended = |gone: Vec<_>| if gone.is_empty() { RouteReply::Stale } else { RouteReply::Changed };
        match command {
            RouteCommand::Bind(Bind { jid, node, incarnation }) => {
                if !self.up(node, incarnation) {
                    return RouteReply::Fenced;
                }
                let displaced = self.take(|full, _| *full == jid).pop().map(|(_, route)| route);
                let route = Route { node, incarnation, index: at, priority: None, resumable_until: None };
                self.sessions.push((jid, route));
                RouteReply::Bound { index: at, displaced }
            }
            RouteCommand::Unbind(Unbind { jid, index }) => {
                ended(self.take(|full, route| *full == jid && route.index == index))
            }
            RouteCommand::Priority(Priority { jid, index, priority }) => {
                self.change(&jid, index, |route| route.priority = priority)
            }
            RouteCommand::Detach(Detach { jid, index, until }) => {
                self.change(&jid, index, |route| route.resumable_until = Some(until))
            }
            RouteCommand::Move(Move { jid, index, node, incarnation }) => {
                if !self.up(node, incarnation) {
                    return RouteReply::Fenced;
                }
                let Some((_, from)) = self.take(|full, route| *full == jid && route.index == index).pop()
                else {
                    return RouteReply::Stale;
                };
                let route = Route { node, incarnation, index: at, resumable_until: None, ..from };
                self.sessions.push((jid, route));
                RouteReply::Moved { index: at, from }
            }
            RouteCommand::Expire(Expire { jid, index, until }) => ended(self.take(|full, route| {
                *full == jid && route.index == index && route.resumable_until.is_some_and(|own| own <= until)
            })),
            RouteCommand::NodeUp(NodeUp { node, incarnation }) => self.node(node, incarnation, true),
            RouteCommand::NodeDown(NodeDown { node, incarnation }) => self.node(node, incarnation, false),
        }
    }
}

/// What a command is made of: kind, address, node, its start, and how far back the bind is that it names.
type Choice = (u8, u8, u64, u64, u64);

fn command(at: BindIndex, (kind, who, node, start, back): Choice) -> RouteCommand {
    let jid = FullJid::new(&format!("a{}@b/{who}", who % 2)).unwrap();
    let (node, incarnation) = (NodeId::new(node), Incarnation(start));
    let index = BindIndex::at(at.log_index().saturating_sub(back / 2), (back % 2) as usize);
    match kind {
        0..=5 => Bind { jid, node, incarnation }.into(),
        6 => Unbind { jid, index }.into(),
        7 => Priority { jid, index, priority: Some(back as i8) }.into(),
        8 | 9 => Detach { jid, index, until: back }.into(),
        10 => Move { jid, index, node, incarnation }.into(),
        11 => Expire { jid, index, until: back }.into(),
        12..=14 => NodeUp { node, incarnation }.into(),
        _ => NodeDown { node, incarnation }.into(),
    }
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec((0..16_u8, 0..4_u8, 1..3_u64, 1..3_u64, 0..12_u64), 0..4)
}

/// The replies as a batch gives them.
fn without_lists(replies: &[RouteReply]) -> Vec<RouteReply> {
    let without = |reply: &RouteReply| match reply {
        RouteReply::Ended(_) => RouteReply::Ended(Vec::new()),
        other => other.clone(),
    };
    replies.iter().map(without).collect()
}

/// What the replies say has ended.
fn lists(replies: &[RouteReply]) -> Vec<Vec<(FullJid, Route)>> {
    let list = |reply: &RouteReply| match reply {
        RouteReply::Ended(sessions) => Some(sessions.clone()),
        _ => None,
    };
    replies.iter().filter_map(list).collect()
}

/// What the events say has ended.
fn ended(events: &[RouteEvent]) -> Vec<Vec<(FullJid, Route)>> {
    let list = |event: &RouteEvent| match event {
        RouteEvent::Ended(ended) => Some(ended.sessions.clone()),
        RouteEvent::Displaced { .. } => None,
    };
    events.iter().filter_map(list).collect()
}

proptest! {
    /// Promise 1 on one table: each full JID has one owner, the same as by the naive rules, after every
    /// entry, through the codec and on a table restored from another.
    #[test]
    fn the_table_is_the_model(script in prop::collection::vec(choices(), 0..60)) {
        let (mut table, mut model) = (RouteTable::default(), Model::default());
        for (log_index, choices) in script.into_iter().enumerate() {
            let log_index = log_index as u64 + 1;
            let (mut commands, mut expected) = (Vec::new(), Vec::new());
            for (position, choice) in choices.into_iter().enumerate() {
                let at = BindIndex::at(log_index, position);
                commands.push(command(at, choice));
                expected.push(model.apply(at, command(at, choice)));
            }
            let bytes = wire::encode(&RouteBatch::new(commands).unwrap()).unwrap();
            let batch: RouteBatch = wire::decode(&bytes).unwrap();
            let origin = Origin { node: NodeId::new(9), start: Incarnation(1), number: log_index };
            let applied = table.apply_batch(log_index, batch.clone().of(origin));
            prop_assert_eq!(&applied.replies.0, &without_lists(&expected));
            prop_assert_eq!(ended(&applied.events), lists(&expected));
            // Proposed twice, done once.
            let again = table.apply_batch(log_index + 1_000, batch.of(origin));
            prop_assert_eq!(again, AppliedBatch { replies: applied.replies, events: Vec::new() });

            prop_assert_eq!(table.sessions(), model.sessions.len());
            prop_assert_eq!(table.routes().count(), model.sessions.len());
            for (jid, route) in &model.sessions {
                prop_assert_eq!(table.locate(jid), Some(*route));
            }
            for account in ["a0@b", "a1@b"].map(|bare| BareJid::new(bare).unwrap()) {
                let of_model: Vec<_> =
                    model.sessions.iter().filter(|(jid, _)| jid.to_bare() == account).cloned().collect();
                prop_assert_eq!(table.locate_account(&account), of_model.as_slice());
            }
            for (node, (incarnation, is_up)) in &model.nodes {
                let state = if *is_up { NodeState::Up } else { NodeState::Down };
                prop_assert_eq!(table.node(*node), Some(state(*incarnation)));
            }
            if log_index.is_multiple_of(16) {
                table = RouteTable::restore(table.nodes().clone(), table.answered().clone(), model.sessions.clone()).unwrap();
            }
        }
    }
}
