//! The command line.

mod accounts;
mod cert;
mod console;
mod dev;
mod reference;
mod run;
mod signals;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

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
    /// Make, change, list and delete accounts (the node must not be running)
    #[command(subcommand)]
    User(user::UserCommand),
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
            Command::Cert(command) => cert::cert(&command)?,
            Command::Reference { what } => say(what.text().trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Loads the configuration, and the certificate as well: most mistakes are made there.
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
