//! PURE: the route table. Same commands in the same order, same table.

use std::collections::HashMap;
use std::fmt;

use althing_proto::jid::{BareJid, FullJid};

use super::command::{RouteCommand, RouteReply};
use crate::node_id::{Incarnation, NodeId};

/// The log index of the bind that began a session: the session's epoch, unique for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct BindIndex(pub u64);

impl fmt::Display for BindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a session is. It says *where*, never what: presence, rosters and messages are not held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The node that holds the session.
    pub node: NodeId,
    /// Which start of that node.
    pub incarnation: Incarnation,
    /// The bind that began the session.
    pub index: BindIndex,
    /// The presence priority (RFC 6121 §4.7.2.3), `None` while the session is not available.
    pub priority: Option<i8>,
}

/// All routes. One full JID has at most one.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// By bare JID, as a string so that a full JID finds it without an allocation. The sessions of an
    /// account are few: a scan beats a second map.
    accounts: HashMap<Box<str>, Vec<(FullJid, Route)>>,
    sessions: usize,
}

impl RouteTable {
    /// Applies the command that stands at `index` of the log.
    pub fn apply(&mut self, index: u64, command: RouteCommand) -> RouteReply {
        match command {
            RouteCommand::Bind { jid, node, incarnation } => {
                let route = Route { node, incarnation, index: BindIndex(index), priority: None };
                let displaced = self.remove(&jid, None);
                self.accounts.entry(account_of(&jid).into()).or_default().push((jid, route));
                self.sessions += 1;
                RouteReply::Bound { displaced }
            }
            RouteCommand::Unbind { jid, index } => match self.remove(&jid, Some(index)) {
                Some(_) => RouteReply::Changed,
                None => RouteReply::Stale,
            },
            RouteCommand::Priority { jid, index, priority } => {
                let owner = self
                    .accounts
                    .get_mut(account_of(&jid))
                    .and_then(|sessions| sessions.iter_mut().find(|(full, _)| *full == jid));
                match owner {
                    Some((_, route)) if route.index == index => {
                        route.priority = priority;
                        RouteReply::Changed
                    }
                    _ => RouteReply::Stale,
                }
            }
        }
    }

    /// Removes the owner of `jid`, if it is the one that `expected` names.
    fn remove(&mut self, jid: &FullJid, expected: Option<BindIndex>) -> Option<Route> {
        let account = account_of(jid);
        let sessions = self.accounts.get_mut(account)?;
        let at = sessions
            .iter()
            .position(|(full, route)| full == jid && expected.is_none_or(|index| index == route.index))?;
        let (_, route) = sessions.remove(at);
        if sessions.is_empty() {
            self.accounts.remove(account);
        }
        self.sessions -= 1;
        Some(route)
    }

    /// The owner of a full JID.
    #[must_use]
    pub fn locate(&self, jid: &FullJid) -> Option<Route> {
        let sessions = self.accounts.get(account_of(jid))?;
        sessions.iter().find(|(full, _)| full == jid).map(|(_, route)| *route)
    }

    /// All sessions of an account, in the order of their binds.
    #[must_use]
    pub fn locate_account(&self, jid: &BareJid) -> &[(FullJid, Route)] {
        self.accounts.get(jid.as_str()).map_or(&[], Vec::as_slice)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions
    }
}

/// The bare JID of a full one, borrowed: all before the first slash (RFC 7622 §3.1).
fn account_of(jid: &FullJid) -> &str {
    jid.as_str().split_once('/').map_or(jid.as_str(), |(bare, _)| bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jid(text: &str) -> FullJid {
        FullJid::new(text).unwrap()
    }

    fn bind(jid_text: &str) -> RouteCommand {
        RouteCommand::Bind { jid: jid(jid_text), node: NodeId::new(1), incarnation: Incarnation(1) }
    }

    #[test]
    fn a_second_bind_displaces_the_first() {
        let mut table = RouteTable::default();
        assert_eq!(table.apply(1, bind("a@b/c")), RouteReply::Bound { displaced: None });
        let RouteReply::Bound { displaced: Some(old) } = table.apply(2, bind("a@b/c")) else {
            panic!("nobody displaced");
        };
        assert_eq!(old.index, BindIndex(1));
        assert_eq!(table.locate(&jid("a@b/c")).unwrap().index, BindIndex(2));
        assert_eq!(table.sessions(), 1);
    }

    #[test]
    fn an_old_session_cannot_touch_a_new_one() {
        let mut table = RouteTable::default();
        table.apply(1, bind("a@b/c"));
        table.apply(2, bind("a@b/c"));
        let stale = RouteCommand::Unbind { jid: jid("a@b/c"), index: BindIndex(1) };
        assert_eq!(table.apply(3, stale), RouteReply::Stale);
        let stale = RouteCommand::Priority { jid: jid("a@b/c"), index: BindIndex(1), priority: Some(5) };
        assert_eq!(table.apply(4, stale), RouteReply::Stale);
        assert_eq!(table.locate(&jid("a@b/c")).unwrap().priority, None);
    }

    #[test]
    fn an_account_lists_its_sessions_in_bind_order() {
        let mut table = RouteTable::default();
        for (index, full) in ["a@b/3", "a@b/1", "x@b/1", "a@b/2"].iter().enumerate() {
            table.apply(index as u64, bind(full));
        }
        let account = BareJid::new("a@b").unwrap();
        let found: Vec<_> = table.locate_account(&account).iter().map(|(full, _)| full.as_str()).collect();
        assert_eq!(found, ["a@b/3", "a@b/1", "a@b/2"]);
    }

    proptest! {
        /// Promise 1 on one table: whatever the commands, each full JID has one owner, the newest bind that
        /// was not ended, and the count is right.
        #[test]
        fn one_owner_at_every_index(script in proptest::collection::vec((0..3u8, 0..4u8, 0..40u64), 0..60)) {
            let mut table = RouteTable::default();
            let mut owners = std::collections::BTreeMap::new();
            for (index, (what, who, named)) in script.into_iter().enumerate() {
                let (index, full) = (index as u64, jid(&format!("a@b/{who}")));
                match what {
                    0 => {
                        table.apply(index, bind(full.as_str()));
                        owners.insert(full, index);
                    }
                    1 => {
                        table.apply(index, RouteCommand::Unbind { jid: full.clone(), index: BindIndex(named) });
                        if owners.get(&full) == Some(&named) {
                            owners.remove(&full);
                        }
                    }
                    _ => {
                        let priority = Some(1);
                        table.apply(index, RouteCommand::Priority { jid: full, index: BindIndex(named), priority });
                    }
                }
                prop_assert_eq!(table.sessions(), owners.len());
                for who in 0..4u8 {
                    let full = jid(&format!("a@b/{who}"));
                    prop_assert_eq!(table.locate(&full).map(|route| route.index.0), owners.get(&full).copied());
                }
            }
        }
    }
}
