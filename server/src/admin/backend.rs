//! What a running node does for the admin socket.

use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;

use althing_cluster::routes::Route;
use althing_proto::jid::{BareJid, FullJid};

use super::protocol::{Answer, Request, RouteReport, SESSIONS, SessionReport, USERS};
use super::restore;
use super::status::StatusSource;
use crate::auth::{CreateError, create_account, disable_account, enable_account, set_password};
use crate::backup::making::Making;
use crate::modules::remove_account;
use crate::node::{NodeContext, Reloader};
use crate::storage::RestoreStep;

/// Answers the requests of the admin socket.
#[async_trait]
pub trait AdminBackend: Send + Sync {
    /// The answer to one request. What fails is an answer too.
    async fn answer(&self, request: Request) -> Answer;

    /// Who has begun the backup `id` is gone.
    fn backup_left(&self, id: u64);
}

/// The address of an account of one of `domains`.
///
/// # Errors
/// When it is none, in words.
pub fn account_address(jid: &str, domains: &[String]) -> anyhow::Result<BareJid> {
    let parsed = althing_proto::jid::parse(jid).with_context(|| format!("\"{jid}\" is not an address"))?;
    if parsed.resource().is_some() {
        bail!("\"{jid}\" has a resource; an account is user@domain");
    }
    let bare = parsed.into_bare();
    if bare.node().is_none() {
        bail!("\"{jid}\" names no user; an account is user@domain");
    }
    if !domains.iter().any(|domain| domain == bare.domain().as_str()) {
        bail!("{} is not a domain of this server; xmpp.domains has {}", bare.domain(), domains.join(", "));
    }
    Ok(bare)
}

/// The backend of a real node.
pub struct NodeAdmin {
    context: Arc<NodeContext>,
    status: StatusSource,
    reloader: Option<Arc<Reloader>>,
    making: Making,
}

impl NodeAdmin {
    /// A backend for `context`; `status` is asked for the cluster, `reloader` for the configuration.
    #[must_use]
    pub fn new(context: Arc<NodeContext>, status: StatusSource, reloader: Option<Arc<Reloader>>) -> Self {
        NodeAdmin { context, status, reloader, making: Making::default() }
    }

    async fn perform(&self, request: Request) -> anyhow::Result<Answer> {
        Ok(match request {
            Request::ClusterStatus => Answer::ClusterStatus(Box::new((self.status)())),
            Request::Reload => {
                let reloader =
                    self.reloader.as_ref().context("nobody knows where the configuration came from")?;
                Answer::Reloaded(reloader.reload()?)
            }
            Request::Route { jid } => Answer::Route(self.route(&jid)?),
            Request::UserAdd { jid, password } => {
                let user = self.account(&jid)?;
                match create_account(&self.context, &user, password).await {
                    Ok(()) => {
                        tracing::info!(jid = %user, "account made by an operator");
                        Answer::Done { changed: true }
                    }
                    Err(CreateError::Exists) => Answer::Done { changed: false },
                    Err(error) => return Err(error.into()),
                }
            }
            Request::UserSetPassword { jid, password } => {
                let user = self.account(&jid)?;
                Answer::Done { changed: set_password(&self.context, &user, password).await? }
            }
            Request::UserDelete { jid } => Answer::Done { changed: self.delete(&self.account(&jid)?).await? },
            Request::UserSetDisabled { jid, disabled } => {
                let user = self.account(&jid)?;
                let changed = match disabled {
                    true => disable_account(&self.context, &user).await?.is_some(),
                    false => enable_account(&self.context, &user).await?,
                };
                tracing::info!(jid = %user, "an operator has decided whether the user may log in");
                Answer::Done { changed }
            }
            Request::BackupBegin { id } => {
                Answer::BackupBegun { head: self.making.begin(&self.context, id).await? }
            }
            Request::BackupRows { id } => {
                let rows = self.making.next(id).await.map_err(anyhow::Error::msg)?;
                Answer::BackupRows { rows: rows.unwrap_or_default() }
            }
            Request::RestoreBegin { id, head } => restore::begin(&self.context, id, &head).await?,
            Request::RestoreRows { id, rows } => {
                restore::step(&self.context, id, RestoreStep::Rows(rows)).await?
            }
            Request::RestoreFinish { id } => restore::finish(&self.context, id).await?,
            Request::UserList { after, disabled } => self.list(after.as_deref(), disabled).await?,
        })
    }

    fn account(&self, jid: &str) -> anyhow::Result<BareJid> {
        account_address(jid, &self.context.config().xmpp.domains)
    }

    /// Whoever is logged in is thrown out, on whatever node.
    async fn delete(&self, user: &BareJid) -> anyhow::Result<bool> {
        let removed = remove_account(&self.context, user).await?;
        if removed {
            tracing::info!(jid = %user, "account deleted by an operator");
        }
        Ok(removed)
    }

    async fn list(&self, after: Option<&str>, disabled: bool) -> anyhow::Result<Answer> {
        let config = Arc::clone(&self.context.config());
        let domains = &config.xmpp.domains;
        let mut after = after.map(|jid| account_address(jid, domains)).transpose()?;
        let first = after.as_ref().and_then(|jid| domains.iter().position(|d| d == jid.domain().as_str()));
        let mut users: Vec<String> = Vec::new();
        for domain in domains.iter().skip(first.unwrap_or(0)) {
            let room = USERS - users.len();
            let (accounts, after) = (&self.context.storage.accounts, after.take());
            let page = match disabled {
                true => accounts.list_disabled(domain, after.as_ref(), room).await?,
                false => accounts.list(domain, after.as_ref(), room).await?,
            };
            users.extend(page.iter().map(BareJid::to_string));
            if users.len() >= USERS {
                return Ok(Answer::Users { users, more: true });
            }
        }
        Ok(Answer::Users { users, more: false })
    }

    fn route(&self, jid: &str) -> anyhow::Result<RouteReport> {
        let parsed =
            althing_proto::jid::parse(jid).with_context(|| format!("\"{jid}\" is not an address"))?;
        let (routes, status) = (&self.context.routes, (self.status)());
        let mut found: Vec<SessionReport> = Vec::new();
        let mut total = 0;
        let mut see = |jid: &FullJid, route: &Route| {
            total += 1;
            if found.len() < SESSIONS {
                found.push(session_report(jid, route));
            }
        };
        match parsed.try_as_full() {
            Ok(full) => {
                if let Some(route) = routes.locate(&full.to_owned()) {
                    see(&full.to_owned(), &route);
                }
            }
            Err(bare) => routes.visit_account(&bare.to_owned(), &mut see),
        }
        let left_off = total - found.len();
        for session in &mut found {
            session.node = status.name_of(&session.node_id).map(str::to_owned);
        }
        Ok(RouteReport {
            jid: parsed.to_string(),
            seen_by: status.node.name,
            // Asked behind the sessions: whoever hears the same index twice in a row has seen what belongs to it.
            applied: routes.shown(),
            sessions: found,
            left_off,
        })
    }
}

fn session_report(jid: &FullJid, route: &Route) -> SessionReport {
    SessionReport {
        jid: jid.to_string(),
        node_id: route.node.to_string(),
        node: None,
        incarnation: route.incarnation.0,
        bind: route.index.0,
        log_index: route.index.log_index(),
        priority: route.priority,
        resumable_until: route.resumable_until,
    }
}

#[async_trait]
impl AdminBackend for NodeAdmin {
    async fn answer(&self, request: Request) -> Answer {
        self.perform(request).await.unwrap_or_else(|error| Answer::Failed { reason: format!("{error:#}") })
    }

    fn backup_left(&self, id: u64) {
        self.making.end(id);
    }
}

#[cfg(test)]
mod tests {
    use althing_proto::sasl::{Credentials, Secret};
    use althing_proto::stream::{Bar, PasswordVerdict};

    use super::*;
    use crate::admin::status;
    use crate::auth::check_password;

    fn admin() -> (Arc<NodeContext>, NodeAdmin) {
        let context = Arc::new(NodeContext::for_tests());
        context.configure(|config| config.auth.scram_iterations = 4096);
        let admin = NodeAdmin::new(Arc::clone(&context), status::single(&context), None);
        (context, admin)
    }

    fn add(jid: &str) -> Request {
        Request::UserAdd { jid: jid.into(), password: Secret::new("secret") }
    }

    async fn listed(admin: &NodeAdmin, after: Option<&str>) -> (Vec<String>, bool) {
        match admin.answer(Request::UserList { after: after.map(str::to_owned), disabled: false }).await {
            Answer::Users { users, more } => (users, more),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn accounts_are_made_changed_and_deleted() {
        let (context, admin) = admin();
        assert_eq!(admin.answer(add("Alice@localhost")).await, Answer::Done { changed: true });
        assert_eq!(admin.answer(add("alice@localhost")).await, Answer::Done { changed: false });
        let set = |jid: &str| Request::UserSetPassword { jid: jid.into(), password: Secret::new("new") };
        assert_eq!(admin.answer(set("bob@localhost")).await, Answer::Done { changed: false });
        assert_eq!(admin.answer(set("alice@localhost")).await, Answer::Done { changed: true });
        let alice = admin.account("alice@localhost").unwrap();
        let account = context.storage.accounts.get(&alice).await.unwrap().unwrap();
        assert!(account.credentials.verify_password("new"));
        assert_eq!(listed(&admin, None).await, (vec!["alice@localhost".to_owned()], false));
        let delete = || Request::UserDelete { jid: "alice@localhost".into() };
        assert_eq!(admin.answer(delete()).await, Answer::Done { changed: true });
        assert_eq!(admin.answer(delete()).await, Answer::Done { changed: false });
    }

    #[actix_rt::test]
    async fn an_account_is_disabled_and_enabled() {
        let (context, admin) = admin();
        let set = |jid: &str, disabled| Request::UserSetDisabled { jid: jid.into(), disabled };
        assert_eq!(admin.answer(set("alice@localhost", true)).await, Answer::Done { changed: false });
        for jid in ["alice@localhost", "bob@localhost"] {
            admin.answer(add(jid)).await;
        }
        assert_eq!(admin.answer(set("alice@localhost", true)).await, Answer::Done { changed: true });
        let disabled = Request::UserList { after: None, disabled: true };
        let expected = Answer::Users { users: vec!["alice@localhost".to_owned()], more: false };
        assert_eq!(admin.answer(disabled).await, expected);
        assert_eq!(listed(&admin, None).await.0.len(), 2);
        let alice = admin.account("alice@localhost").unwrap();
        let right = check_password(&context, &alice, Secret::new("secret")).await;
        assert_eq!(right, PasswordVerdict::Barred(Bar::Disabled));
        assert_eq!(check_password(&context, &alice, Secret::new("x")).await, PasswordVerdict::Wrong);
        assert_eq!(admin.answer(set("alice@localhost", false)).await, Answer::Done { changed: true });
        let right = check_password(&context, &alice, Secret::new("secret")).await;
        assert_eq!(right, PasswordVerdict::Right);
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_answered_in_words() {
        let (_, admin) = admin();
        for (jid, why) in [
            ("alice@elsewhere", "is not a domain of this server"),
            ("localhost", "names no user"),
            ("alice@localhost/phone", "has a resource"),
            ("@", "is not an address"),
        ] {
            match admin.answer(add(jid)).await {
                Answer::Failed { reason } => assert!(reason.contains(why), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        let empty = Request::UserAdd { jid: "a@localhost".into(), password: Secret::new("") };
        assert!(matches!(admin.answer(empty).await, Answer::Failed { .. }));
    }

    #[tokio::test]
    async fn pages_follow_one_another() {
        let (context, admin) = admin();
        let credentials = Credentials::derive("x", 4096, [1; 16]).unwrap();
        let names: Vec<String> = (0..USERS + 1).map(|i| format!("user-{i:04}@localhost")).collect();
        for name in &names {
            let account =
                crate::storage::Account { credentials: credentials.clone(), created: context.now() };
            context.storage.accounts.create(&admin.account(name).unwrap(), account).await.unwrap();
        }
        let (first, more) = listed(&admin, None).await;
        assert_eq!((first.as_slice(), more), (&names[..USERS], true));
        let (second, more) = listed(&admin, first.last().map(String::as_str)).await;
        assert_eq!((second.as_slice(), more), (&names[USERS..], false));
    }

    #[tokio::test]
    async fn routes_are_shown_with_node_and_epoch() {
        let (context, admin) = admin();
        let phone = FullJid::new("alice@localhost/phone").unwrap();
        let bound = context.routes.bind(&phone).await.unwrap();
        context.routes.bind(&FullJid::new("alice@localhost/desk").unwrap()).await.unwrap();
        context.routes.set_priority(&phone, bound.index, Some(5)).await.unwrap();
        let report = admin.route("alice@localhost").unwrap();
        assert_eq!(report.sessions.len(), 2);
        assert_eq!((report.left_off, report.seen_by.as_str()), (0, "node-0"));
        let first = &report.sessions[0];
        assert_eq!((first.jid.as_str(), first.priority), ("alice@localhost/phone", Some(5)));
        assert_eq!((first.bind, first.log_index), (bound.index.0, bound.index.log_index()));
        assert_eq!(first.node.as_deref(), Some("node-0"));
        assert_eq!(admin.route("alice@localhost/desk").unwrap().sessions.len(), 1);
        assert!(admin.route("bob@localhost").unwrap().sessions.is_empty());
    }
}
