//! What a session reads from the store, and what it writes to the table of routes.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::BoxFuture;
use tracing::{debug, warn};

use althing_proto::stream::error::StreamCondition;

use super::drain::AGAIN;
use super::{Session, privacy};
use crate::modules::{self, missed_pushes};
use crate::pipeline::Effects;
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::session::messages::EndReason;
use crate::storage::profile::LoginData;

impl Session {
    /// What the client lacks of its roster since a version, as pushes.
    pub(super) fn missing_pushes(&self, since: u64) -> BoxFuture<'static, Effects> {
        let (storage, jid) = (self.node.storage.clone(), self.state.jid().clone());
        Box::pin(async move {
            match storage.rosters.since(&jid.to_bare(), since, u32::MAX).await {
                Ok(news) => missed_pushes(&jid, news),
                Err(error) => {
                    // The next change asks again.
                    warn!(%jid, %error, "roster pushes are late");
                    vec![Effect::Session(SessionChange::Interested { version: since })]
                }
            }
        })
    }

    /// Lets the route table know; what follows waits until it does.
    pub(super) fn commit_priority(&self, priority: Option<i8>) -> BoxFuture<'static, Effects> {
        let (node, jid, index) = (Arc::clone(&self.node), self.state.jid().clone(), self.state.index());
        Box::pin(async move {
            if let Err(error) = node.routes.set_priority(&jid, index, priority).await {
                // Another bind owns the address: this session is about to be told.
                debug!(%jid, %error, "priority not committed");
            }
            Vec::new()
        })
    }

    /// Reads what the account wants to be archived, before anything more is written to its client.
    pub(super) fn read_archive(&mut self, ctx: &mut Context<Self>) {
        let (storage, account) = (self.node.storage.clone(), self.state.account().clone());
        let read = async move { storage.archive.preferences(&account).await };
        ctx.wait(read.into_actor(self).map(|read, session, ctx| match read {
            Ok(preferences) => session.state.set_archive(preferences),
            Err(error) => {
                warn!(jid = %session.state.jid(), %error, "archive preferences are late");
                ctx.run_later(AGAIN, |session, ctx| {
                    if session.over().is_none() {
                        session.read_archive(ctx);
                    }
                });
            }
        }));
    }

    /// Loads the roster, the privacy list, and what else of the account the session shows, before the mailbox is
    /// looked into: changes of them that come meanwhile wait there, and their versions tell whether what was loaded has
    /// them.
    pub(super) fn load_roster(&self, ctx: &mut Context<Self>) {
        let (storage, account) = (self.node.storage.clone(), self.state.account().clone());
        let load = async move { storage.logins.login(&account, modules::LOGIN_DOCUMENTS).await };
        ctx.wait(load.into_actor(self).map(|loaded, session, ctx| match loaded {
            // It was removed or disabled between the login and the bind.
            Ok(LoginData { account: false, .. }) => {
                drop(session.end(&EndReason::Error(StreamCondition::NotAuthorized.into())));
            }
            Ok(LoginData { roster, documents, privacy, archive, .. }) => {
                let (jid, index) = (session.state.jid().clone(), session.state.index());
                let avatar = modules::avatar(documents.into_iter().flatten().next());
                let privacy = privacy::made_ready(privacy, &roster.items, &session.node.seen_keys);
                let state = SessionState::new(jid, index, roster.version, roster.items);
                session.state = state.with_avatar(avatar);
                session.state.set_privacy(privacy);
                session.state.set_archive(archive);
                session.go_on_as_carried(ctx);
            }
            Err(error) => {
                warn!(jid = %session.state.jid(), %error, "no roster: the session cannot begin");
                drop(session.end(&EndReason::Error(StreamCondition::InternalServerError.into())));
            }
        }));
    }
}
