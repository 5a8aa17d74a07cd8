//! Plays a script: fresh accounts, one client after another over the endpoints, step by step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::captures::Captures;
use super::parser::{Action, Declared, Role, Script, Step};
use super::play::Player;
use crate::endpoint::Endpoint;
use crate::login::{Account, register_at};

/// The account of this name is the same in all scripts, and an administrator of the server.
pub const ADMIN: &str = "admin";

/// A script on its way.
pub(super) struct Run<'a> {
    pub(super) endpoints: &'a [Endpoint],
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) players: BTreeMap<String, Player>,
    pub(super) captures: Captures,
    /// Whose messages to whom come back.
    pub(super) unheard: BTreeSet<(String, String)>,
}

/// Plays `script` against `endpoints`: the clients are dealt out to them in the order of declaration, so
/// the same script shows one node and a cluster to be alike.
///
/// # Errors
/// The first step that fails, with its line.
pub async fn run(script: &Script, endpoints: &[Endpoint]) -> Result<()> {
    let first = endpoints.first().context("no endpoint")?;
    let mut run = Run {
        endpoints,
        accounts: BTreeMap::new(),
        players: BTreeMap::new(),
        captures: Captures::default(),
        unheard: BTreeSet::new(),
    };
    run.captures.set("domain", first.domain.as_str());
    let account = |declared: &Declared| match &declared.role {
        Role::Client { account, host, .. } => Some((account.clone(), host.clone())),
        Role::Component { .. } => None,
    };
    let names: BTreeMap<String, Option<String>> = script.clients.iter().filter_map(account).collect();
    for (name, host) in names {
        let endpoint = at_host(first, host.as_deref());
        let account = if name == ADMIN { administrator() } else { registered(&endpoint, &name).await? };
        run.accounts.insert(name, account);
    }
    for (index, declared) in script.clients.iter().enumerate() {
        run.declare(index, declared)?;
    }
    for step in &script.steps {
        run.step(step).await.with_context(|| format!("line {}", step.line))?;
    }
    run.nothing_left().await.context("at the end of the script")
}

async fn registered(endpoint: &Endpoint, name: &str) -> Result<Account> {
    let account = Account::fresh(name);
    register_at(endpoint, &account).await.with_context(|| format!("registering {name}"))?;
    Ok(account)
}

/// The same server, as that host of it.
fn at_host(endpoint: &Endpoint, label: Option<&str>) -> Endpoint {
    let domain =
        label.map_or_else(|| endpoint.domain.clone(), |label| format!("{label}.{}", endpoint.domain));
    Endpoint { domain, ..endpoint.clone() }
}

/// The administrator's account. Whoever starts the server makes it: none is registered in band.
#[must_use]
pub fn administrator() -> Account {
    Account { user: ADMIN.to_owned(), password: "administrator".to_owned() }
}

impl Run<'_> {
    fn declare(&mut self, index: usize, declared: &Declared) -> Result<()> {
        let endpoint = &self.endpoints[index % self.endpoints.len()];
        let name = &declared.name;
        let player = match &declared.role {
            Role::Client { account, resource, host } => {
                let endpoint = at_host(endpoint, host.as_deref());
                let account = self.accounts.get(account).context("no such account")?.clone();
                let bare = account.bare(&endpoint.domain);
                self.captures.set(format!("{name}.user"), account.user.as_str());
                self.captures.set(format!("{name}.password"), account.password.as_str());
                self.captures.set(format!("{name}.resource"), resource.as_str());
                self.captures.set(name.as_str(), format!("{bare}/{resource}"));
                self.captures.set(format!("{name}.bare"), bare);
                Player::client(name, endpoint, account, resource)
            }
            Role::Component { label } => {
                let domain = format!("{label}.{}", endpoint.domain);
                self.captures.set(name.as_str(), domain.as_str());
                Player::component(name, endpoint.clone(), &domain)
            }
        };
        if self.players.insert(name.clone(), player).is_some() {
            bail!("two clients are called {name}");
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        match &step.action {
            Action::ReceiveNothing => self.nothing_for(&step.who).await,
            Action::Befriend(other) => self.befriend(&step.who, other).await,
            Action::Unheard { by, now } => {
                let pair = (step.who.clone(), by.clone());
                let fresh = if *now { self.unheard.insert(pair) } else { self.unheard.remove(&pair) };
                ensure!(fresh, "that was so before");
                Ok(())
            }
            action => {
                let player = self.players.get_mut(&step.who).context("no such client")?;
                player.play(action, &mut self.captures).await.with_context(|| step.who.clone())
            }
        }
    }
}
