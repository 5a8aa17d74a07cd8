//! `althing user`: accounts, through the running node or in the store of one that is down.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use althing_proto::sasl::Secret as Password;

use super::ConfigFile;
use super::console::say;
use super::door::Door;

/// Longest line that is read as a password, in bytes.
const PASSWORD_LINE_BYTES: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account
    Add(Secret),
    /// Set the password of an account
    Passwd(Secret),
    /// List all accounts, one a line
    List(Which),
    /// Delete an account with everything it owns
    Delete(Whom),
    /// End the sessions of an account and let nobody log in, until it is enabled again
    Disable(Whom),
    /// Let the user of a disabled account log in again
    Enable(Whom),
}

/// Arguments that say which accounts.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    config: ConfigFile,
    /// Only those that are disabled
    #[arg(long)]
    disabled: bool,
}

/// Arguments that name an account.
#[derive(Debug, Args)]
pub(super) struct Whom {
    #[command(flatten)]
    config: ConfigFile,
    /// Address of the account: user@domain
    jid: String,
}

/// Arguments that name an account and where its password comes from.
#[derive(Debug, Args)]
pub(super) struct Secret {
    #[command(flatten)]
    whom: Whom,
    /// Read the password from the first line of standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

pub(super) fn user(command: &UserCommand) -> anyhow::Result<()> {
    actix_rt::System::new().block_on(perform(command))
}

async fn perform(command: &UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add(secret) => {
            let jid = &secret.whom.jid;
            let mut door = Door::open(&secret.whom.config).await?;
            let outcome = match prepare(&door, secret) {
                Ok(password) => door.add(jid, password).await,
                Err(error) => Err(error),
            };
            door.close().await?;
            if !outcome? {
                bail!("{jid} exists already; `althing user passwd` sets its password");
            }
            say(format_args!("{jid}: made"))?;
        }
        UserCommand::Passwd(secret) => {
            let jid = &secret.whom.jid;
            let mut door = Door::open(&secret.whom.config).await?;
            let outcome = match prepare(&door, secret) {
                Ok(password) => door.set_password(jid, password).await,
                Err(error) => Err(error),
            };
            door.close().await?;
            if !outcome? {
                bail!("{jid}: no such account");
            }
            say(format_args!("{jid}: password set"))?;
        }
        UserCommand::List(which) => {
            let mut door = Door::open(&which.config).await?;
            let outcome = door.list(which.disabled, |jid| Ok(say(jid)?)).await;
            door.close().await?;
            outcome?;
        }
        UserCommand::Delete(whom) => {
            let mut door = Door::open(&whom.config).await?;
            let outcome = door.delete(&whom.jid).await;
            door.close().await?;
            if !outcome? {
                bail!("{}: no such account", whom.jid);
            }
            say(format_args!("{}: deleted", whom.jid))?;
        }
        UserCommand::Disable(whom) => set_disabled(whom, true).await?,
        UserCommand::Enable(whom) => set_disabled(whom, false).await?,
    }
    Ok(())
}

async fn set_disabled(whom: &Whom, disabled: bool) -> anyhow::Result<()> {
    let mut door = Door::open(&whom.config).await?;
    let outcome = door.set_disabled(&whom.jid, disabled).await;
    door.close().await?;
    if !outcome? {
        bail!("{}: no such account", whom.jid);
    }
    say(format_args!("{}: {}", whom.jid, if disabled { "disabled" } else { "enabled" }))?;
    Ok(())
}

/// Nobody is asked for the password of an address that cannot be one.
fn prepare(door: &Door, secret: &Secret) -> anyhow::Result<Password> {
    door.check(&secret.whom.jid)?;
    read_password(secret.password_stdin).map(Password::new)
}

/// From standard input, or asked for twice.
fn read_password(from_stdin: bool) -> anyhow::Result<String> {
    if from_stdin {
        return first_line(std::io::stdin().lock());
    }
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to ask for the password on; use --password-stdin");
    }
    let ask = |prompt: &str| rpassword::prompt_password(prompt).context("the password cannot be read");
    let password = ask("Password: ")?;
    if password != ask("Once more: ")? {
        bail!("the two passwords differ");
    }
    Ok(password)
}

/// The first line without its end; the rest of the input is left alone.
fn first_line(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(PASSWORD_LINE_BYTES).read_line(&mut line).context("the password cannot be read")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_line_is_not_part_of_the_password() {
        assert_eq!(first_line(&b" two words \r\nrest"[..]).unwrap(), " two words ");
        assert_eq!(first_line(&b"no end"[..]).unwrap(), "no end");
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
