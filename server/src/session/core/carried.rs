//! PURE: what a session keeps when its stream is resumed elsewhere (XEP-0198 §5), and how it goes on.

use bytes::Bytes;

use althing_proto::stanza::Stanza;

use super::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::session::handed_over::{Carried, presence};

impl SessionState {
    /// What goes with the session.
    #[must_use]
    pub fn carried(&self) -> Carried {
        let xml = |presence: &Stanza| Bytes::from(presence.to_standalone());
        Carried {
            presence: self.presence.as_ref().map(xml),
            said: self.said.as_ref().map(xml),
            directed: self.directed.iter().cloned().collect(),
            roster: self.pushes.has(),
            took_over: self.took_over,
            active_list: self.active_list(),
            asked_for_blocks: self.asked_for_blocks(),
            invisible: self.invisible,
            seen: self.seen.iter().collect(),
            carbons: self.wants_carbons(),
            arrived: Vec::new(),
            fetches: self.fetches(),
            receipts: self.gives_receipts(),
            recent: Vec::new(),
        }
    }

    /// A session that has been made ready like a new one goes on as the one that is carried. What it must do first is
    /// given back: nobody is told, for nobody has noticed.
    pub fn carry(&mut self, carried: Carried) -> Vec<Effect> {
        self.presence = presence(carried.presence.as_ref());
        self.said = presence(carried.said.as_ref());
        carried.directed.into_iter().for_each(|target| self.directed.insert(target));
        self.took_over = carried.took_over;
        self.invisible = carried.invisible;
        self.set_carbons(carried.carbons);
        if carried.fetches {
            self.set_fetches();
        }
        if carried.receipts {
            self.set_gives_receipts();
        }
        for hash in carried.seen {
            if !self.seen.available(hash) {
                break;
            }
        }
        if carried.asked_for_blocks {
            self.ask_for_blocks();
        }
        let mut effects = Vec::new();
        if carried.active_list.is_some() {
            effects.push(Effect::Session(SessionChange::ActiveList(carried.active_list)));
        }
        if let Some(version) = carried.roster {
            // XEP-0198 §5: what has changed meanwhile is sent.
            effects.push(Effect::Session(SessionChange::Interested { version }));
        }
        effects
    }
}
