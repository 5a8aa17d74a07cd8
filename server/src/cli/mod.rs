//! The command line.

mod accounts;
mod backup;
mod cert;
mod cluster;
mod console;
mod dev;
mod door;
mod reference;
mod reload;
mod restore;
mod route;
mod run;
mod signals;
mod table;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::admin::AdminClient;
use crate::admin::protocol::SOCKET;
use crate::config::Config;
use crate::listener::tls::TlsContext;
use console::say;

/// Althing, a clustered XMPP server.
#[derive(Debug, Parser)]
#[command(name = "althing", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node until SIGINT or SIGTERM
    Run(run::RunArgs),
    /// Run a development server on loopback: certificates, configuration and data are made when missing
    Dev(dev::DevArgs),
    /// Say whether a configuration can be used, and if not, everything that is wrong with it
    CheckConfig(ConfigFile),
    /// Make, change, list and delete accounts, through the running node; in the store of a single node that is down
    #[command(subcommand)]
    User(user::UserCommand),
    /// Ask a running node about its cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Say where the sessions of an address are, by the route table of a running node
    Route(route::RouteArgs),
    /// Have a running node read its configuration and certificates again, as SIGHUP does; exit code 1 when it is refused
    Reload(reload::ReloadArgs),
    /// Write a copy of all that the server keeps to a file, through a running node; nobody waits for it
    Backup(backup::BackupArgs),
    /// Take a backup in, through a running node of a server that has no accounts; all of it or nothing
    Restore(restore::RestoreArgs),
    /// Make certificates
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Print a reference: every configuration key, metric, log field or specification
    Reference {
        /// Which one
        what: reference::Reference,
    },
}

/// The option that names the configuration.
#[derive(Debug, Args)]
struct ConfigFile {
    /// TOML file with the configuration; variables ALTHING__SECTION__KEY win over it
    #[arg(long = "config", value_name = "FILE", env = "ALTHING_CONFIG")]
    path: PathBuf,
}

/// The options that name a running node of this machine.
#[derive(Debug, Args)]
struct NodeDoor {
    /// TOML file with the node's configuration: its data directory has the admin socket
    #[arg(long = "config", value_name = "FILE", env = "ALTHING_CONFIG", required_unless_present = "socket")]
    config: Option<PathBuf>,
    /// The admin socket itself; wins over --config
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl NodeDoor {
    async fn connect(&self) -> anyhow::Result<AdminClient> {
        let path = match (&self.socket, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(file)) => Config::data_dir(file)?.join(SOCKET),
            (None, None) => anyhow::bail!("give --config or --socket"),
        };
        AdminClient::connect_to(&path)
            .await?
            .with_context(|| format!("nobody answers on {}: the node does not run", path.display()))
    }
}

impl Cli {
    /// Does what the arguments ask for.
    ///
    /// # Errors
    ///
    /// Whatever stopped the command, as a chain from what was tried to why it failed.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(&args)?,
            Command::Dev(args) => return dev::dev(&args),
            Command::CheckConfig(file) => check_config(&file)?,
            Command::User(command) => user::user(&command)?,
            Command::Cluster(command) => return cluster::cluster(&command),
            Command::Route(args) => return route::route(&args),
            Command::Reload(args) => return reload::reload(&args),
            Command::Backup(args) => backup::backup(&args)?,
            Command::Restore(args) => restore::restore(&args)?,
            Command::Cert(command) => cert::cert(&command)?,
            Command::Reference { what } => say(what.text().trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Loads the configuration, and the certificates as well: most mistakes are made there.
fn check_config(file: &ConfigFile) -> anyhow::Result<()> {
    let config = Config::load(&file.path)?;
    if config.tls.certificate.is_some() {
        let context = TlsContext::load(&config.tls)?;
        if !context.is_valid(crate::clock::now()) {
            anyhow::bail!(
                "the certificate is valid from {} to {}, not now",
                context.not_before.to_xep0082(),
                context.not_after.to_xep0082()
            );
        }
    }
    if config.cluster.enabled {
        cert::cluster::check(&config)?;
    }
    say(format_args!("{}: can be used", file.path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_takes_a_password_as_an_argument() {
        for command in ["add", "passwd"] {
            let line = ["althing", "user", command, "--config", "f", "a@localhost", "secret"];
            assert!(Cli::try_parse_from(line).is_err());
        }
    }
}
