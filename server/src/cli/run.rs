//! `althing run`: one node until a signal; SIGHUP has it read its configuration again.

use anyhow::Context;
use clap::Args;

use super::ConfigFile;
use super::signals::{EndSignals, hang_ups, parent_gone};
use crate::config::Config;
use crate::node::{Node, Source};
use crate::telemetry;

/// Arguments of `althing run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// End when standard input is closed, so that no node outlives the process that started it
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Runs the node until SIGINT, SIGTERM or the end of its parent, then stops it in order.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config.path)?;
    let log = telemetry::init(&config.log)?;
    // Absolute, should somebody change the directory; no link is resolved, for links are how files are replaced.
    let file = std::path::absolute(&args.config.path)?;
    actix_rt::System::new().block_on(serve(config, Source { file, log }, args.exit_with_parent))
}

async fn serve(config: Config, source: Source, exit_with_parent: bool) -> anyhow::Result<()> {
    // Caught before the start, so that a signal meanwhile ends the node in order too.
    let mut signals = EndSignals::catch().context("signals cannot be caught")?;
    let mut hang_ups = hang_ups().context("signals cannot be caught")?;
    let parent = async {
        if exit_with_parent {
            let _ = parent_gone().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let node = Node::start_from(config, Some(source)).await.context("the node did not start")?;
    let mut failure = None;
    let reload = async {
        // Several that come together are one.
        while hang_ups.recv().await.is_some() {
            node.reload();
        }
        std::future::pending::<()>().await;
    };
    let reason = tokio::select! {
        () = reload => "no signals come any more",
        signal = signals.next() => signal,
        () = parent => "the parent process ended",
        why = node.failed() => {
            failure = Some(why);
            "the node cannot take part in its cluster"
        }
    };
    node.stop(reason).await?;
    failure.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}
