//! PURE: the route table. Same commands in the same order, same table.

use std::collections::hash_map::{HashMap, RandomState};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use althing_proto::jid::{BareJid, FullJid};

use super::command::{
    Bind, Detach, Expire, MAX_BATCH, Millis, Move, NodeDown, NodeUp, Priority, RouteCommand, RouteReplies,
    RouteReply, Unbind,
};
use crate::node_id::{Incarnation, NodeId};
use crate::origin::Answered;

/// The parts that a frozen copy shares with the table, until one of them changes. So many that copying one
/// of a table of a million sessions takes a fraction of a millisecond.
const SHARDS: usize = 1_024;

/// Where the bind that began a session stands in the log: the session's epoch, unique for ever, and later
/// for a later bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct BindIndex(pub u64);

impl BindIndex {
    const POSITION_BITS: u32 = (MAX_BATCH as u64).ilog2();

    /// The index of the command at `position` of the batch at `log_index`. Positions are below
    /// [`MAX_BATCH`].
    #[must_use]
    pub const fn at(log_index: u64, position: usize) -> Self {
        BindIndex((log_index << Self::POSITION_BITS) | position as u64)
    }

    /// The index of the log entry with the bind.
    #[must_use]
    pub const fn log_index(self) -> u64 {
        self.0 >> Self::POSITION_BITS
    }
}

impl fmt::Display for BindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a session is. It says *where*, never what: presence, rosters and messages are not held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// The node that holds the session.
    pub node: NodeId,
    /// Which start of that node.
    pub incarnation: Incarnation,
    /// The bind that began the session.
    pub index: BindIndex,
    /// The presence priority (RFC 6121 §4.7.2.3), `None` while the session is not available.
    pub priority: Option<i8>,
    /// Until when a session without a stream can be resumed; `None` while it has one.
    pub resumable_until: Option<Millis>,
}

/// What the table knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeState {
    /// That start of it is up.
    Up(Incarnation),
    /// That start of it is over, and so is every earlier one.
    Down(Incarnation),
}

impl NodeState {
    /// The latest start that the table knows.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        match self {
            NodeState::Up(incarnation) | NodeState::Down(incarnation) => incarnation,
        }
    }
}

/// The accounts of one shard by bare JID, as a string so that a full JID finds it without an allocation.
/// The sessions of an account are few and in the order of their binds: a scan beats a second map.
type Shard = HashMap<Box<str>, Vec<(FullJid, Route)>>;

/// All routes. One full JID has at most one.
///
/// A clone is a frozen copy: it costs the same however many sessions there are, and the table and its copies
/// go on sharing what neither changes.
#[derive(Debug, Clone)]
pub struct RouteTable {
    shards: Box<[Arc<Shard>]>,
    /// Says which shard an account is in. Differs from replica to replica; nothing that shows does.
    hasher: RandomState,
    nodes: BTreeMap<NodeId, NodeState>,
    pub(super) answered: Answered<RouteReplies>,
    sessions: usize,
}

impl Default for RouteTable {
    fn default() -> Self {
        RouteTable {
            shards: vec![Arc::default(); SHARDS].into(),
            hasher: RandomState::new(),
            nodes: BTreeMap::new(),
            answered: Answered::default(),
            sessions: 0,
        }
    }
}

impl RouteTable {
    /// The last batch of each node and its answer.
    #[must_use]
    pub fn answered(&self) -> &Answered<RouteReplies> {
        &self.answered
    }

    /// Applies one command; `at` is its place in the log. Places must grow from command to command.
    pub fn apply(&mut self, at: BindIndex, command: RouteCommand) -> RouteReply {
        match command {
            RouteCommand::Bind(Bind { jid, node, incarnation }) => {
                if !self.is_up(node, incarnation) {
                    return RouteReply::Fenced;
                }
                let displaced = self.remove(&jid, |_| true);
                self.insert(
                    jid,
                    Route { node, incarnation, index: at, priority: None, resumable_until: None },
                );
                RouteReply::Bound { index: at, displaced }
            }
            RouteCommand::Unbind(Unbind { jid, index }) => {
                changed_if(self.remove(&jid, |route| route.index == index).is_some())
            }
            RouteCommand::Priority(Priority { jid, index, priority }) => {
                self.update(&jid, index, |route| route.priority = priority)
            }
            RouteCommand::Detach(Detach { jid, index, until }) => {
                self.update(&jid, index, |route| route.resumable_until = Some(until))
            }
            RouteCommand::Move(Move { jid, index, node, incarnation }) => {
                if !self.is_up(node, incarnation) {
                    return RouteReply::Fenced;
                }
                let Some(from) = self.remove(&jid, |route| route.index == index) else {
                    return RouteReply::Stale;
                };
                self.insert(
                    jid,
                    Route { node, incarnation, index: at, priority: from.priority, resumable_until: None },
                );
                RouteReply::Moved { index: at, from }
            }
            RouteCommand::Expire(Expire { jid, index, until }) => {
                let is_over = |route: &Route| {
                    route.index == index && route.resumable_until.is_some_and(|own| own <= until)
                };
                changed_if(self.remove(&jid, is_over).is_some())
            }
            RouteCommand::NodeUp(NodeUp { node, incarnation }) => match self.nodes.get(&node) {
                Some(NodeState::Up(up)) if *up == incarnation => RouteReply::Ended(Vec::new()),
                Some(known) if known.incarnation() >= incarnation => RouteReply::Stale,
                _ => {
                    self.nodes.insert(node, NodeState::Up(incarnation));
                    RouteReply::Ended(self.end(node))
                }
            },
            RouteCommand::NodeDown(NodeDown { node, incarnation }) => match self.nodes.get(&node) {
                Some(NodeState::Down(down)) if *down >= incarnation => RouteReply::Stale,
                Some(NodeState::Up(up)) if *up > incarnation => RouteReply::Stale,
                _ => {
                    self.nodes.insert(node, NodeState::Down(incarnation));
                    RouteReply::Ended(self.end(node))
                }
            },
        }
    }

    fn is_up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.nodes.get(&node) == Some(&NodeState::Up(incarnation))
    }

    fn shard_of(&self, account: &str) -> usize {
        (self.hasher.hash_one(account) % SHARDS as u64) as usize
    }

    /// Adds a session that is newer than all others of its account.
    fn insert(&mut self, jid: FullJid, route: Route) {
        let account = account_of(&jid);
        let shard = Arc::make_mut(&mut self.shards[self.shard_of(account)]);
        self.sessions += usize::from(is_session(&jid));
        shard.entry(account.into()).or_default().push((jid, route));
    }

    /// Removes the owner of `jid` if it is meant. Copies no shared shard in vain.
    fn remove(&mut self, jid: &FullJid, is_meant: impl Fn(&Route) -> bool) -> Option<Route> {
        let found = self.locate(jid).filter(is_meant)?;
        let account = account_of(jid);
        let shard = Arc::make_mut(&mut self.shards[self.shard_of(account)]);
        let sessions = shard.get_mut(account)?;
        sessions.retain(|(full, _)| full != jid);
        if sessions.is_empty() {
            shard.remove(account);
        }
        self.sessions -= usize::from(is_session(jid));
        Some(found)
    }

    /// Changes the session that `index` began, for the node that holds it.
    fn update(&mut self, jid: &FullJid, index: BindIndex, change: impl Fn(&mut Route)) -> RouteReply {
        let Some(found) = self.locate(jid).filter(|route| route.index == index) else {
            return RouteReply::Stale;
        };
        if !self.is_up(found.node, found.incarnation) {
            return RouteReply::Fenced;
        }
        let account = account_of(jid);
        let shard = Arc::make_mut(&mut self.shards[self.shard_of(account)]);
        let sessions = shard.get_mut(account).map_or(&mut [][..], Vec::as_mut_slice);
        sessions.iter_mut().filter(|(full, _)| full == jid).for_each(|(_, route)| change(route));
        RouteReply::Changed
    }

    /// Ends the sessions of a node that belong to no start that is up and cannot be resumed. Looks at the
    /// whole table: nodes come and go seldom.
    fn end(&mut self, node: NodeId) -> Vec<(FullJid, Route)> {
        let state = self.nodes.get(&node).copied();
        let is_over = |route: &Route| {
            route.node == node
                && state != Some(NodeState::Up(route.incarnation))
                && route.resumable_until.is_none()
        };
        let mut ended = Vec::new();
        for shard in &mut self.shards {
            let accounts: HashSet<Box<str>> = shard
                .iter()
                .filter(|(_, sessions)| sessions.iter().any(|(_, route)| is_over(route)))
                .map(|(account, _)| account.clone())
                .collect();
            if accounts.is_empty() {
                continue;
            }
            let shard = Arc::make_mut(shard);
            for account in accounts {
                let Some(sessions) = shard.get_mut(&account) else { continue };
                ended.extend(sessions.extract_if(.., |(_, route)| is_over(route)));
                if sessions.is_empty() {
                    shard.remove(&account);
                }
            }
        }
        self.sessions -= ended.iter().filter(|(jid, _)| is_session(jid)).count();
        ended.sort_unstable_by_key(|(_, route)| route.index);
        ended
    }

    /// The owner of a full JID.
    #[must_use]
    pub fn locate(&self, jid: &FullJid) -> Option<Route> {
        let account = account_of(jid);
        let sessions = self.shards[self.shard_of(account)].get(account)?;
        sessions.iter().find(|(full, _)| full == jid).map(|(_, route)| *route)
    }

    /// All sessions of an account, in the order of their binds.
    #[must_use]
    pub fn locate_account(&self, jid: &BareJid) -> &[(FullJid, Route)] {
        let shard = &self.shards[self.shard_of(jid.as_str())];
        shard.get(jid.as_str()).map_or(&[], Vec::as_slice)
    }

    /// What the table knows of a node; `None` if it was never up.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeState> {
        self.nodes.get(&node).copied()
    }

    /// The node with the lowest number among those that are up.
    #[must_use]
    pub fn first_up(&self) -> Option<NodeId> {
        let up = |(node, state): (&NodeId, &NodeState)| matches!(state, NodeState::Up(_)).then_some(*node);
        self.nodes.iter().find_map(up)
    }

    /// All nodes that were ever up.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.nodes
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &(FullJid, Route)> {
        self.shards.iter().flat_map(|shard| shard.values()).flatten()
    }

    /// The table with those nodes, answers and routes; the routes of an account in the order of their binds.
    ///
    /// # Errors
    /// The JID that has two routes.
    pub fn restore(
        nodes: BTreeMap<NodeId, NodeState>,
        answered: Answered<RouteReplies>,
        routes: impl IntoIterator<Item = (FullJid, Route)>,
    ) -> Result<Self, FullJid> {
        let mut table = RouteTable { nodes, answered, ..RouteTable::default() };
        for (jid, route) in routes {
            if table.locate(&jid).is_some() {
                return Err(jid);
            }
            table.insert(jid, route);
        }
        Ok(table)
    }

    /// How many sessions there are. Connections of components are none.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions
    }
}

fn changed_if(changed: bool) -> RouteReply {
    if changed { RouteReply::Changed } else { RouteReply::Stale }
}

/// Whether the address is that of a client's session: a component is attached under an address without a local part.
#[must_use]
pub fn is_session(jid: &FullJid) -> bool {
    jid.node().is_some()
}

/// The bare JID of a full one, borrowed: all before the first slash (RFC 7622 §3.1).
fn account_of(jid: &FullJid) -> &str {
    jid.as_str().split_once('/').map_or(jid.as_str(), |(bare, _)| bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::new(1);
    const OTHER: NodeId = NodeId::new(2);
    const FIRST: Incarnation = Incarnation(1);

    fn jid(text: &str) -> FullJid {
        FullJid::new(text).unwrap()
    }

    fn table() -> RouteTable {
        let nodes = BTreeMap::from([(NODE, NodeState::Up(FIRST)), (OTHER, NodeState::Up(FIRST))]);
        RouteTable::restore(nodes, Answered::default(), []).unwrap()
    }

    fn apply(table: &mut RouteTable, at: u64, command: impl Into<RouteCommand>) -> RouteReply {
        table.apply(BindIndex(at), command.into())
    }

    fn bind(full: &str) -> Bind {
        Bind { jid: jid(full), node: NODE, incarnation: FIRST }
    }

    #[test]
    fn a_second_bind_displaces_the_first() {
        let mut table = table();
        let first = RouteReply::Bound { index: BindIndex(1), displaced: None };
        assert_eq!(apply(&mut table, 1, bind("a@b/c")), first);
        let RouteReply::Bound { displaced: Some(old), .. } = apply(&mut table, 2, bind("a@b/c")) else {
            panic!("nobody displaced");
        };
        assert_eq!(old.index, BindIndex(1));
        assert_eq!(table.locate(&jid("a@b/c")).unwrap().index, BindIndex(2));
        assert_eq!(table.sessions(), 1);
    }

    #[test]
    fn an_old_session_cannot_touch_a_new_one() {
        let mut table = table();
        apply(&mut table, 1, bind("a@b/c"));
        apply(&mut table, 2, bind("a@b/c"));
        let (full, index) = (jid("a@b/c"), BindIndex(1));
        let before = table.locate(&full);
        let stale: [RouteCommand; 5] = [
            Unbind { jid: full.clone(), index }.into(),
            Priority { jid: full.clone(), index, priority: Some(5) }.into(),
            Detach { jid: full.clone(), index, until: 9 }.into(),
            Move { jid: full.clone(), index, node: OTHER, incarnation: FIRST }.into(),
            Expire { jid: full.clone(), index, until: 9 }.into(),
        ];
        for command in stale {
            assert_eq!(apply(&mut table, 3, command), RouteReply::Stale);
        }
        assert_eq!(table.locate(&full), before);
    }

    #[test]
    fn of_two_resumers_one_wins_and_the_priority_stays() {
        let mut table = table();
        let (full, index) = (jid("a@b/c"), BindIndex(1));
        apply(&mut table, 1, bind("a@b/c"));
        apply(&mut table, 2, Priority { jid: full.clone(), index, priority: Some(3) });
        apply(&mut table, 3, Detach { jid: full.clone(), index, until: 100 });
        let moved = |node| Move { jid: full.clone(), index, node, incarnation: FIRST };
        assert!(matches!(apply(&mut table, 4, moved(OTHER)), RouteReply::Moved { .. }));
        assert_eq!(apply(&mut table, 5, moved(NODE)), RouteReply::Stale);
        // Its time was that of the detached session.
        assert_eq!(apply(&mut table, 6, Expire { jid: full.clone(), index, until: 100 }), RouteReply::Stale);
        let route = table.locate(&full).unwrap();
        assert_eq!((route.node, route.index), (OTHER, BindIndex(4)));
        assert_eq!((route.priority, route.resumable_until), (Some(3), None));
    }

    #[test]
    fn a_session_detached_anew_outlives_its_first_expiry() {
        let mut table = table();
        let (full, index) = (jid("a@b/c"), BindIndex(1));
        apply(&mut table, 1, bind("a@b/c"));
        apply(&mut table, 2, Detach { jid: full.clone(), index, until: 100 });
        apply(&mut table, 3, Detach { jid: full.clone(), index, until: 200 });
        let expire = |until| Expire { jid: full.clone(), index, until };
        assert_eq!(apply(&mut table, 4, expire(100)), RouteReply::Stale);
        assert_eq!(apply(&mut table, 5, expire(200)), RouteReply::Changed);
        assert_eq!(table.sessions(), 0);
    }

    #[test]
    fn a_dead_node_loses_what_cannot_be_resumed_and_owns_nothing_more() {
        let mut table = table();
        for (at, full) in [(1, "z@b/1"), (2, "a@b/1"), (3, "a@b/2")] {
            apply(&mut table, at, bind(full));
        }
        apply(&mut table, 4, Bind { jid: jid("o@b/1"), node: OTHER, incarnation: FIRST });
        apply(&mut table, 5, Detach { jid: jid("a@b/2"), index: BindIndex(3), until: 100 });
        let down = NodeDown { node: NODE, incarnation: FIRST };
        let RouteReply::Ended(ended) = apply(&mut table, 6, down.clone()) else { panic!("nothing ended") };
        let ended: Vec<_> = ended.iter().map(|(full, _)| full.as_str()).collect();
        assert_eq!(ended, ["z@b/1", "a@b/1"]);
        assert_eq!(apply(&mut table, 7, down), RouteReply::Stale);
        assert_eq!(apply(&mut table, 8, bind("n@b/1")), RouteReply::Fenced);
        assert_eq!(apply(&mut table, 9, NodeUp { node: NODE, incarnation: FIRST }), RouteReply::Stale);
        assert_eq!(table.sessions(), 2);
        let detached = Move { jid: jid("a@b/2"), index: BindIndex(3), node: OTHER, incarnation: FIRST };
        assert!(matches!(apply(&mut table, 10, detached), RouteReply::Moved { .. }));
    }

    #[test]
    fn a_restarted_node_ends_its_earlier_start() {
        let mut table = table();
        apply(&mut table, 1, bind("a@b/1"));
        let up = NodeUp { node: NODE, incarnation: Incarnation(2) };
        let RouteReply::Ended(ended) = apply(&mut table, 2, up) else { panic!("nothing ended") };
        assert_eq!(ended.len(), 1);
        assert_eq!(apply(&mut table, 3, bind("a@b/1")), RouteReply::Fenced);
        assert_eq!(apply(&mut table, 4, NodeDown { node: NODE, incarnation: FIRST }), RouteReply::Stale);
    }

    #[test]
    fn connections_of_components_are_found_and_ended_like_sessions_and_not_counted_as_such() {
        let mut table = table();
        for (at, full) in [(1, "a@b/1"), (2, "irc.b/x"), (3, "irc.b/y")] {
            apply(&mut table, at, bind(full));
        }
        assert_eq!(table.sessions(), 1);
        assert_eq!(table.locate_account(&BareJid::new("irc.b").unwrap()).len(), 2);
        apply(&mut table, 4, Unbind { jid: jid("irc.b/x"), index: BindIndex(2) });
        let down = NodeDown { node: NODE, incarnation: FIRST };
        let RouteReply::Ended(ended) = apply(&mut table, 5, down) else { panic!("nothing ended") };
        assert_eq!((ended.len(), table.sessions()), (2, 0));
    }

    #[test]
    fn a_frozen_copy_does_not_change() {
        let mut table = table();
        apply(&mut table, 1, bind("a@b/1"));
        let frozen = table.clone();
        apply(&mut table, 2, Priority { jid: jid("a@b/1"), index: BindIndex(1), priority: Some(1) });
        apply(&mut table, 3, bind("a@b/2"));
        assert_eq!((frozen.sessions(), frozen.locate_account(&BareJid::new("a@b").unwrap()).len()), (1, 1));
        assert_eq!(frozen.locate(&jid("a@b/1")).unwrap().priority, None);
    }
}
