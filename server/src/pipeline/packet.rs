//! A packet on its way through the stages: the stanza, and facts gathered once.

use std::sync::Arc;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza::Stanza;
use althing_proto::time::Timestamp;

use super::interest::At;
use crate::node::NodeContext;
use crate::session::core::SessionState;

/// For whom a packet passes the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// For its sender, in the sender's session: may it be sent?
    Outbound,
    /// For the server itself: it is addressed to a domain that is served here.
    Server,
    /// For an account, whether or not it has sessions: the server acts on its behalf.
    Account(BareJid),
    /// For one session of the receiver: may it be delivered?
    Inbound,
}

impl Pass {
    /// The word for the log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Pass::Outbound => "outbound",
            Pass::Server => "server",
            Pass::Account(_) => "account",
            Pass::Inbound => "inbound",
        }
    }
}

/// An immutable stanza with what the stages need to know about it.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The stanza, `from` stamped.
    pub stanza: Stanza,
    /// For whom it passes now.
    pub pass: Pass,
}

impl Packet {
    /// A packet on its way.
    #[must_use]
    pub fn new(stanza: Stanza, pass: Pass) -> Self {
        Packet { stanza, pass }
    }

    /// The place in the pipeline: what interests are matched against.
    #[must_use]
    pub fn at(&self) -> At {
        match &self.pass {
            Pass::Outbound => At::OUTBOUND,
            Pass::Server => At::SERVER,
            Pass::Inbound => At::INBOUND,
            Pass::Account(account) if self.is_from_account(account) => At::OWN_ACCOUNT,
            Pass::Account(_) => At::OTHER_ACCOUNT,
        }
    }

    /// Whether the sender is a resource of `account`, or the account itself.
    #[must_use]
    pub fn is_from_account(&self, account: &BareJid) -> bool {
        self.stanza.from().is_some_and(|from| is_of_account(from, account))
    }

    /// The account for which the packet passes, where it passes for one.
    #[must_use]
    pub fn account(&self) -> Option<&BareJid> {
        match &self.pass {
            Pass::Account(account) => Some(account),
            Pass::Outbound | Pass::Server | Pass::Inbound => None,
        }
    }
}

/// Whether `jid` is `account` or one of its resources; allocates nothing.
#[must_use]
pub fn is_of_account(jid: &Jid, account: &BareJid) -> bool {
    jid.as_str().strip_prefix(account.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a module may look at while it decides.
pub struct View<'a> {
    /// The node: configuration, storage, routes.
    pub node: &'a Arc<NodeContext>,
    /// The session in which the packet is handled, where there is one: the sender's in the outbound pass
    /// and for packets to the server and to accounts, the receiver's in the inbound pass.
    pub session: Option<&'a SessionState>,
    /// The wall clock.
    pub now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_told_from_one_with_a_longer_name() {
        let account = BareJid::new("a@b.c").unwrap();
        for (jid, own) in
            [("a@b.c", true), ("a@b.c/d", true), ("a@b.com", false), ("b.c", false), ("a@b", false)]
        {
            assert_eq!(is_of_account(&Jid::new(jid).unwrap(), &account), own, "{jid}");
        }
    }
}
