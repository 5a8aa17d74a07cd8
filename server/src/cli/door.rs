//! The way to the accounts: the running node, or the store of a single node that is down.

use anyhow::{bail, ensure};

use althing_proto::jid::BareJid;
use althing_proto::sasl::Secret;

use super::ConfigFile;
use super::accounts::Accounts;
use crate::admin::protocol::{Answer, Request};
use crate::admin::{AdminClient, account_address};
use crate::config::Config;

/// Who answers.
enum Way {
    /// The node runs.
    Node(AdminClient),
    /// It does not; nobody else has the store.
    Store(Accounts),
}

/// An open way to the accounts.
pub(super) struct Door {
    way: Way,
    domains: Vec<String>,
}

impl Door {
    /// Opens the way by the configuration in `file`.
    ///
    /// # Errors
    /// As [`Door::by`], and a configuration that cannot be used.
    pub(super) async fn open(file: &ConfigFile) -> anyhow::Result<Self> {
        Self::by(&Config::load(&file.path)?).await
    }

    /// The running node, if there is one. The store itself is opened for a single node only: in a cluster what
    /// one node writes by itself would be lost, or worse, differ.
    ///
    /// # Errors
    /// A node of a cluster that does not run; as [`Accounts::open`].
    pub(super) async fn by(config: &Config) -> anyhow::Result<Self> {
        let way = match AdminClient::connect(&config.node.data_dir).await? {
            Some(client) => Way::Node(client),
            None if config.cluster.enabled => bail!(
                "{} does not run, and its accounts are the cluster's: start it, or give the configuration of a \
                 node that runs on this machine",
                config.node.name
            ),
            None => Way::Store(Accounts::open(config)?),
        };
        Ok(Door { way, domains: config.xmpp.domains.clone() })
    }

    /// The address as a user of one of our domains.
    ///
    /// # Errors
    /// When it is none, in words.
    pub(super) fn check(&self, jid: &str) -> anyhow::Result<BareJid> {
        account_address(jid, &self.domains)
    }

    /// Makes an account; false when it is there already, which stays as it is.
    pub(super) async fn add(&mut self, jid: &str, password: Secret) -> anyhow::Result<bool> {
        match &mut self.way {
            Way::Store(accounts) => accounts.add(jid, password.expose()).await,
            Way::Node(node) => change(node, Request::UserAdd { jid: jid.to_owned(), password }).await,
        }
    }

    /// Sets the password; false when there is no such account.
    pub(super) async fn set_password(&mut self, jid: &str, password: Secret) -> anyhow::Result<bool> {
        match &mut self.way {
            Way::Store(accounts) => accounts.set_password(jid, password.expose()).await,
            Way::Node(node) => change(node, Request::UserSetPassword { jid: jid.to_owned(), password }).await,
        }
    }

    /// Deletes the account with everything it owns; false when there is no such account.
    pub(super) async fn delete(&mut self, jid: &str) -> anyhow::Result<bool> {
        match &mut self.way {
            Way::Store(accounts) => accounts.delete(jid).await,
            Way::Node(node) => change(node, Request::UserDelete { jid: jid.to_owned() }).await,
        }
    }

    /// Disables the account and ends its sessions, or lets its user log in again; false when there is no such account.
    pub(super) async fn set_disabled(&mut self, jid: &str, disabled: bool) -> anyhow::Result<bool> {
        match &mut self.way {
            Way::Store(accounts) => accounts.set_disabled(jid, disabled).await,
            Way::Node(node) => change(node, Request::UserSetDisabled { jid: jid.to_owned(), disabled }).await,
        }
    }

    /// Hands every account of every domain to `each`, or every one that is disabled.
    pub(super) async fn list(
        &mut self,
        disabled: bool,
        mut each: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let node = match &mut self.way {
            Way::Store(accounts) => return accounts.list(disabled, |jid| each(jid.as_str())).await,
            Way::Node(node) => node,
        };
        let mut after = None;
        loop {
            let Answer::Users { users, more } = node.ask(&Request::UserList { after, disabled }).await?
            else {
                bail!("the node answers something else than was asked");
            };
            users.iter().try_for_each(|jid| each(jid))?;
            if !more {
                return Ok(());
            }
            after = users.into_iter().next_back();
            ensure!(after.is_some(), "the node says that more follows nothing");
        }
    }

    /// Writes everything down and lets go.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self.way {
            Way::Store(accounts) => accounts.close().await,
            Way::Node(_) => Ok(()),
        }
    }
}

/// Asks for a change; whether there was one.
async fn change(node: &mut AdminClient, request: Request) -> anyhow::Result<bool> {
    match node.ask(&request).await? {
        Answer::Done { changed } => Ok(changed),
        _ => bail!("the node answers something else than was asked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::{AdminSocket, NodeAdmin, status};
    use crate::node::NodeContext;

    fn config(dir: &std::path::Path) -> Config {
        let mut config = Config::default();
        config.node.data_dir = dir.to_owned();
        config.auth.scram_iterations = 4096;
        config
    }

    async fn listed(door: &mut Door) -> Vec<String> {
        let mut listed = Vec::new();
        let each = |jid: &str| {
            listed.push(jid.to_owned());
            Ok(())
        };
        door.list(false, each).await.unwrap();
        listed
    }

    #[test]
    fn a_running_node_is_asked_and_else_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        actix_rt::System::new().block_on(async {
            let context = NodeContext::for_tests();
            context.configure(|config| config.auth.scram_iterations = 4096);
            let context = Arc::new(context);
            let backend = NodeAdmin::new(Arc::clone(&context), status::single(&context), None);
            let socket = AdminSocket::open(dir.path(), Arc::new(backend)).unwrap();
            let mut door = Door::by(&config).await.unwrap();
            assert!(door.add("alice@localhost", Secret::new("a")).await.unwrap());
            assert!(!door.add("alice@localhost", Secret::new("a")).await.unwrap());
            assert!(door.set_password("alice@localhost", Secret::new("b")).await.unwrap());
            assert_eq!(listed(&mut door).await, ["alice@localhost"]);
            assert!(door.set_disabled("alice@localhost", true).await.unwrap());
            assert!(!door.set_disabled("bob@localhost", true).await.unwrap());
            assert!(door.delete("alice@localhost").await.unwrap());
            let error = door.add("alice@elsewhere", Secret::new("a")).await.unwrap_err();
            assert!(error.to_string().contains("is not a domain of this server"), "{error}");
            drop(socket);

            let mut door = Door::by(&config).await.unwrap();
            assert!(door.add("bob@localhost", Secret::new("b")).await.unwrap());
            assert!(door.set_disabled("bob@localhost", true).await.unwrap());
            assert!(door.set_disabled("bob@localhost", false).await.unwrap());
            assert_eq!(listed(&mut door).await, ["bob@localhost"]);
            door.close().await.unwrap();
        });
    }

    #[test]
    fn the_store_of_a_cluster_is_not_opened_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.cluster.enabled = true;
        actix_rt::System::new().block_on(async {
            let error = Door::by(&config).await.err().unwrap().to_string();
            assert!(error.contains("node-0 does not run"), "{error}");
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
