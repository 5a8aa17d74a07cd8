//! `althing reload`: has a running node read its configuration again.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::NodeDoor;
use super::console::say;
use crate::admin::protocol::{Answer, ReloadReport, Request};

/// Arguments of `althing reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    door: NodeDoor,
}

/// A configuration that is refused is an error: the exit code is 1.
pub(super) fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    actix_rt::System::new().block_on(async {
        let Answer::Reloaded(report) = args.door.connect().await?.ask(&Request::Reload).await? else {
            bail!("the node answers something else than was asked");
        };
        say(text(&report).trim_end())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn text(report: &ReloadReport) -> String {
    let mut out = match report.changed.as_slice() {
        [] => "no key has changed\n".to_owned(),
        keys => format!("in force now: {}\n", keys.join(", ")),
    };
    if let Some(until) = &report.certificate_until {
        out += &format!("certificate read: valid until {until}\n");
    }
    if !report.restart.is_empty() {
        out += &format!("changed, but only a restart brings it: {}\n", report.restart.join(", "));
    }
    out
}
