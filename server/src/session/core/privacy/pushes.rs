//! PURE: what a client is told when privacy lists change: pushes of both protocols.

use althing_proto::jid::Jid;
use althing_proto::ns;
use althing_proto::privacy::{BlockDelta, Lists};
use althing_proto::stanza::{IqType, Kind, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::SessionState;
use crate::session::effect::Effect;
use crate::session::rules::Rules;

impl SessionState {
    /// The client has asked for the block list: it is told of changes from now on.
    pub(in crate::session) fn ask_for_blocks(&mut self) {
        self.privacy.asked_for_blocks = true;
    }

    /// What the client must hear of a block list that is another one now.
    pub(super) fn compared(&self, before: Option<&Rules>, lists: &Lists) -> Vec<Effect> {
        let mut now: Vec<&Jid> = lists.list.iter().flat_map(|list| list.blocked()).collect();
        now.sort();
        now.dedup();
        let new = |jid: &&Jid| before.is_none_or(|before| !before.shows(jid));
        let added: Vec<Jid> = now.iter().copied().filter(|jid| new(jid)).cloned().collect();
        let kept = now.len() - added.len();
        if before.is_some_and(|before| before.shown() > kept) {
            // Who was taken away is not known any more: the client is told from the beginning.
            return self.whole_block_list(lists);
        }
        self.block_push(&BlockDelta::Blocked(added)).into_iter().collect()
    }

    /// The block list from the beginning. Who is on it no more is not known.
    #[must_use]
    pub fn whole_block_list(&self, lists: &Lists) -> Vec<Effect> {
        let mut all: Vec<Jid> = lists.list.iter().flat_map(|list| list.blocked()).cloned().collect();
        all.sort();
        all.dedup();
        let pushes = [BlockDelta::Unblocked(Vec::new()), BlockDelta::Blocked(all)];
        pushes.iter().flat_map(|push| self.block_push(push)).collect()
    }

    /// XEP-0191 §3.3, §3.4: the push for a client that has asked for the list.
    pub(super) fn block_push(&self, delta: &BlockDelta) -> Option<Effect> {
        let (word, jids) = match delta {
            BlockDelta::Blocked(jids) if !jids.is_empty() => ("block", jids),
            BlockDelta::Unblocked(jids) => ("unblock", jids),
            BlockDelta::Blocked(_) | BlockDelta::None => return None,
        };
        let items = jids.iter().map(block_item);
        let payload = Element::builder(word, ns::BLOCKING).append_all(items);
        Some(self.push(&format!("{word}-{}", self.privacy.version), payload.build()))
    }

    /// XEP-0016 §2.2 rule 10: tells the client that a list has changed, in the change of that version.
    pub(super) fn list_push(&self, list: &str, version: u64) -> Effect {
        let list = Element::builder("list", ns::PRIVACY).set(name!("name"), list);
        let payload = Element::builder("query", ns::PRIVACY).append(list);
        self.push(&format!("list-{version}"), payload.build())
    }

    fn push(&self, id: &str, payload: Element) -> Effect {
        let iq = Element::builder("iq", ns::CLIENT)
            .set(name!("type"), IqType::Set.name())
            .set(name!("id"), id)
            .append(payload)
            .build();
        let to = self.jid().clone().into();
        Effect::Deliver(Stanza::from_parts(Kind::Iq(IqType::Set), None, Some(to), iq))
    }
}

/// An address in a block list or a push (XEP-0191 §3.2).
#[must_use]
pub fn block_item(jid: &Jid) -> Element {
    Element::builder("item", ns::BLOCKING).set(name!("jid"), jid.as_str()).build()
}
