//! The accounts of a node that is down, for the commands.

use crate::config::Config;

pub(super) struct Accounts;

impl Accounts {
    pub(super) fn open(_: &Config) -> anyhow::Result<Self> {
        anyhow::bail!("the store is not built in yet")
    }
    pub(super) fn check(&self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
    pub(super) async fn add(&self, _: &str, _: &str) -> anyhow::Result<bool> {
        Ok(true)
    }
    pub(super) async fn set_password(&self, _: &str, _: &str) -> anyhow::Result<bool> {
        Ok(true)
    }
    pub(super) async fn delete(&self, _: &str) -> anyhow::Result<bool> {
        Ok(true)
    }
    pub(super) async fn list(&self, _: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        Ok(())
    }
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}
