//! Privacy lists in the session: what they apply to, read and followed.

use std::hash::RandomState;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tracing::warn;

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::privacy::Lists;
use althing_proto::roster::RosterItem;
use althing_proto::stream::error::StreamCondition;

use super::Session;
use crate::delivery::Next;
use crate::pipeline::Effects;
use crate::session::core::LoadedPrivacy;
use crate::session::effect::{Effect, SessionChange};
use crate::session::rules::{Rules, needs_roster};
use crate::storage::{Storage, StorageError, WhichList};

impl Session {
    /// Follows what concerns privacy lists.
    pub(super) fn change_privacy(&mut self, change: SessionChange) -> Next {
        let (routes, keys) = (Arc::clone(&self.node.routes), &self.node.seen_keys);
        let sessions_of = |account: &BareJid| {
            let mut available: Vec<FullJid> = Vec::new();
            routes.visit_account(account, &mut |jid, route| {
                if route.priority.is_some() {
                    available.push(jid.clone());
                }
            });
            available
        };
        let effects = match change {
            SessionChange::Privacy(change) => self.state.on_privacy(&change, keys, &sessions_of),
            SessionChange::PrivacyLoaded(loaded) => self.state.on_privacy_loaded(*loaded, keys, &sessions_of),
            SessionChange::ActiveList(list) => {
                // XEP-0016 §2.4: it applies before the client is told.
                self.state.set_active_list(list);
                return Next::Wait(self.reload_privacy());
            }
            SessionChange::ReloadPrivacy => return Next::Wait(self.reload_privacy()),
            SessionChange::ReloadBlocks => return Next::Wait(self.reload_blocks()),
            SessionChange::BlocksLoaded(lists) => self.state.whole_block_list(&lists),
            _ => Vec::new(),
        };
        self.show();
        Next::Effects(effects)
    }

    /// Hides the session, or shows that it is there no longer. Nobody can ask for its presence before they are told.
    pub(super) fn change_visibility(&mut self, invisible: Option<bool>) -> Next {
        let was_available = self.state.presence().is_some();
        let mut others = Vec::new();
        self.node.routes.visit_account(self.state.account(), &mut |jid, route| {
            if route.priority.is_some() && route.index != self.state.index() {
                others.push(jid.clone());
            }
        });
        let effects = self.state.set_invisible(invisible, others);
        self.show();
        if was_available && self.state.presence().is_none() {
            return Next::Wait(self.commit_priority(None));
        }
        Next::Effects(effects)
    }

    /// Reads the list that applies. What follows waits: nothing passes by rules that are over.
    fn reload_privacy(&self) -> BoxFuture<'static, Effects> {
        let which = self.state.active_list().map_or(WhichList::Default, WhichList::Applied);
        let (storage, account) = (self.node.storage.clone(), self.state.account().clone());
        let keys = self.node.seen_keys.clone();
        Box::pin(async move {
            let loaded = read(&storage, &account, which, &keys).await;
            loaded_or_over(&account, loaded.map(|loaded| SessionChange::PrivacyLoaded(Box::new(loaded))))
        })
    }

    /// Reads the default list for the client alone, which has another one.
    fn reload_blocks(&self) -> BoxFuture<'static, Effects> {
        let (storage, account) = (self.node.storage.clone(), self.state.account().clone());
        Box::pin(async move {
            let lists = storage.privacy.load(&account, WhichList::Default).await;
            loaded_or_over(&account, lists.map(|lists| SessionChange::BlocksLoaded(Box::new(lists))))
        })
    }
}

/// What was read is taken over; without it nobody knows what the user wants.
fn loaded_or_over(account: &BareJid, loaded: Result<SessionChange, StorageError>) -> Effects {
    let change = loaded.unwrap_or_else(|error| {
        warn!(jid = %account, %error, "no privacy list: the session cannot go on");
        SessionChange::Close(StreamCondition::InternalServerError.into())
    });
    vec![Effect::Session(change)]
}

/// Reads a list and makes it ready, with the roster where its rules need it.
async fn read(
    storage: &Storage,
    account: &BareJid,
    which: WhichList,
    keys: &RandomState,
) -> Result<LoadedPrivacy, StorageError> {
    let lists = storage.privacy.load(account, which).await?;
    let roster = match &lists.list {
        Some(list) if needs_roster(list) => storage.rosters.load(account).await?.items,
        _ => Vec::new(),
    };
    Ok(made_ready(lists, &roster, keys))
}

/// Lists, and the one that was asked for made ready.
pub(super) fn made_ready(lists: Lists, roster: &[RosterItem], keys: &RandomState) -> LoadedPrivacy {
    let rules = lists.list.as_ref().and_then(|list| Rules::of(list, roster, keys)).map(Arc::new);
    LoadedPrivacy { lists, rules }
}
