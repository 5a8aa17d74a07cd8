//! The accounts of a node that is down, for the commands.

use althing_proto::jid::BareJid;
use althing_proto::sasl::Credentials;
use anyhow::{Context, bail};
use ring::rand::{SecureRandom, SystemRandom};

use crate::admin::account_address;
use crate::clock;
use crate::config::{Backend, Config};
use crate::storage::{Account, EmbeddedOptions, Storage, StorageError};

/// Accounts that are read at once when all are listed.
const PAGE: usize = 500;

/// The accounts in a store that no node has open.
pub(super) struct Accounts {
    storage: Storage,
    domains: Vec<String>,
    iterations: u32,
}

impl Accounts {
    /// Opens the store of `config`.
    ///
    /// # Errors
    ///
    /// When a running node has it, and whatever the store itself finds.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        if config.storage.backend == Backend::Memory {
            bail!("storage.backend is \"memory\": its accounts live in the running node only");
        }
        let options =
            EmbeddedOptions { cache_bytes: config.storage.cache_bytes(), ..EmbeddedOptions::default() };
        let storage =
            Storage::open_embedded(&config.node.data_dir, options).map_err(|error| match error {
                StorageError::Locked { .. } => anyhow::Error::new(error).context(
                    "a running node has the store open, but does not answer on its admin socket; stop it first",
                ),
                other => other.into(),
            })?;
        Ok(Accounts {
            storage,
            domains: config.xmpp.domains.clone(),
            iterations: config.auth.scram_iterations,
        })
    }

    /// The address as a user of one of our domains.
    ///
    /// # Errors
    ///
    /// When it is none, in words.
    pub(super) fn check(&self, jid: &str) -> anyhow::Result<BareJid> {
        account_address(jid, &self.domains)
    }

    /// Makes an account; false when it is there already, which stays as it is.
    pub(super) async fn add(&self, jid: &str, password: &str) -> anyhow::Result<bool> {
        let (user, credentials) = (self.check(jid)?, self.credentials(password)?);
        let account = Account { credentials, created: clock::now() };
        Ok(self.storage.accounts.create(&user, account).await?)
    }

    /// Sets the password; false when there is no such account.
    pub(super) async fn set_password(&self, jid: &str, password: &str) -> anyhow::Result<bool> {
        let (user, credentials) = (self.check(jid)?, self.credentials(password)?);
        Ok(self.storage.accounts.set_credentials(&user, credentials).await?)
    }

    /// Deletes the account with everything it owns; false when there is no such account.
    pub(super) async fn delete(&self, jid: &str) -> anyhow::Result<bool> {
        Ok(self.storage.accounts.delete(&self.check(jid)?).await?)
    }

    /// Disables the account, or lets its user log in again; false when there is no such account.
    pub(super) async fn set_disabled(&self, jid: &str, disabled: bool) -> anyhow::Result<bool> {
        let since = disabled.then(clock::now);
        Ok(self.storage.accounts.set_disabled(&self.check(jid)?, since).await?)
    }

    /// Hands every account of every domain to `each`, or every one that is disabled.
    pub(super) async fn list(
        &self,
        disabled: bool,
        mut each: impl FnMut(&BareJid) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for domain in &self.domains {
            let mut after: Option<BareJid> = None;
            loop {
                let accounts = &self.storage.accounts;
                let page = match disabled {
                    true => accounts.list_disabled(domain, after.as_ref(), PAGE).await?,
                    false => accounts.list(domain, after.as_ref(), PAGE).await?,
                };
                for user in &page {
                    each(user)?;
                }
                if page.len() < PAGE {
                    break;
                }
                after = page.into_iter().next_back();
            }
        }
        Ok(())
    }

    /// Writes everything down and lets go of the store.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.storage.close().await?)
    }

    /// PBKDF2 takes milliseconds, on a thread that does nothing else.
    fn credentials(&self, password: &str) -> anyhow::Result<Credentials> {
        let mut salt = [0_u8; 16];
        SystemRandom::new().fill(&mut salt).ok().context("the system gives no random bytes")?;
        Credentials::derive(password, self.iterations, salt).context("the password cannot be used")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &std::path::Path) -> Config {
        let mut config = Config::default();
        config.node.data_dir = dir.to_owned();
        config.auth.scram_iterations = 4096;
        config
    }

    /// Runs `work` on a store of its own, then opens the store once more and lists it.
    fn listed_after<F: Future<Output = ()>>(work: impl FnOnce(Accounts) -> F) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        actix_rt::System::new().block_on(async {
            work(Accounts::open(&config).unwrap()).await;
            let accounts = Accounts::open(&config).unwrap();
            let mut listed = Vec::new();
            let each = |jid: &BareJid| {
                listed.push(jid.to_string());
                Ok(())
            };
            accounts.list(false, each).await.unwrap();
            accounts.close().await.unwrap();
            listed
        })
    }

    #[test]
    fn accounts_are_made_once_and_deleted() {
        let listed = listed_after(|accounts| async move {
            assert!(accounts.add("Alice@localhost", "a").await.unwrap());
            assert!(!accounts.add("alice@localhost", "b").await.unwrap());
            assert!(accounts.add("bob@localhost", "b").await.unwrap());
            assert!(accounts.add("carol@localhost", "c").await.unwrap());
            assert!(accounts.delete("bob@localhost").await.unwrap());
            assert!(!accounts.delete("bob@localhost").await.unwrap());
            accounts.close().await.unwrap();
        });
        assert_eq!(listed, ["alice@localhost", "carol@localhost"]);
    }

    #[test]
    fn a_password_is_set_for_existing_accounts_only() {
        listed_after(|accounts| async move {
            accounts.add("alice@localhost", "old").await.unwrap();
            assert!(accounts.set_password("alice@localhost", "new").await.unwrap());
            assert!(!accounts.set_password("bob@localhost", "new").await.unwrap());
            let alice = accounts.check("alice@localhost").unwrap();
            let account = accounts.storage.accounts.get(&alice).await.unwrap().unwrap();
            assert!(
                account.credentials.verify_password("new") && !account.credentials.verify_password("old")
            );
            accounts.close().await.unwrap();
        });
    }

    #[test]
    fn only_users_of_own_domains_are_taken() {
        listed_after(|accounts| async move {
            for (jid, reason) in [
                ("alice@elsewhere", "is not a domain of this server"),
                ("localhost", "names no user"),
                ("alice@localhost/phone", "has a resource"),
                ("@", "is not an address"),
            ] {
                let error = accounts.check(jid).unwrap_err().to_string();
                assert!(error.contains(reason), "{error}");
            }
            assert!(accounts.add("alice@localhost", "").await.is_err());
            accounts.close().await.unwrap();
        });
    }

    #[test]
    fn a_store_in_use_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        actix_rt::System::new().block_on(async {
            let accounts = Accounts::open(&config).unwrap();
            let error = Accounts::open(&config).err().unwrap();
            assert!(error.to_string().contains("a running node has the store open"), "{error}");
            accounts.close().await.unwrap();
        });
    }
}
