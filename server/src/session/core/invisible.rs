//! PURE: a session that hides from all, and still receives (XEP-0186).

use althing_proto::jid::FullJid;
use althing_proto::stanza::Stanza;

use super::SessionState;
use crate::session::effect::Effect;

impl SessionState {
    /// Set while the session hides from all; whether it asks for the presence of others then.
    #[must_use]
    pub fn invisible(&self) -> Option<bool> {
        self.invisible
    }

    /// The presence that others have been told.
    pub(super) fn told_presence(&self) -> Option<&Stanza> {
        self.presence.as_ref().filter(|_| self.invisible.is_none())
    }

    /// The session hides from now on, or no longer. `others`: the account's other available sessions.
    pub fn set_invisible(&mut self, invisible: Option<bool>, others: Vec<FullJid>) -> Vec<Effect> {
        match (self.invisible, invisible) {
            (None, Some(_)) => self.hide(invisible, others),
            (Some(asked), Some(asks)) => {
                self.invisible = invisible;
                // It has been available without: it asks now.
                (asks && !asked).then(|| self.probes()).flatten().into_iter().collect()
            }
            (Some(_), None) => {
                // §3.2: as before initial presence, but that whom directed presence told learns of the end.
                self.invisible = None;
                self.presence = None;
                self.seen.clear();
                Vec::new()
            }
            (None, None) => Vec::new(),
        }
    }

    /// §3.1: whoever has been told that it is available is told that it is not.
    fn hide(&mut self, invisible: Option<bool>, others: Vec<FullJid>) -> Vec<Effect> {
        let (presence, seen) = (self.presence.clone(), std::mem::take(&mut self.seen));
        let told = presence.is_some() || self.took_over;
        let gone = self.unavailable();
        self.leave(&gone);
        // It is there all the same, and receives.
        (self.presence, self.seen, self.invisible) = (presence, seen, invisible);
        let mut effects = self.take_untold();
        for effect in &mut effects {
            if let Effect::FanOut { to, .. } = effect {
                // The client itself would take it for its own end.
                to.retain(|account| *account != self.account);
            }
        }
        if told {
            effects.extend(others.into_iter().map(|other| Effect::Route(gone.with_to(other))));
        }
        effects
    }
}
