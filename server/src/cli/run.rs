//! `althing run`: one node until a signal.

use anyhow::Context;
use clap::Args;

use super::ConfigFile;
use super::signals::{EndSignals, parent_gone};
use crate::config::Config;
use crate::node::Node;
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
    telemetry::init(&config.log)?;
    actix_rt::System::new().block_on(serve(config, args.exit_with_parent))
}

async fn serve(config: Config, exit_with_parent: bool) -> anyhow::Result<()> {
    // Caught before the start, so that a signal meanwhile ends the node in order too.
    let mut signals = EndSignals::catch().context("signals cannot be caught")?;
    let parent = async {
        if exit_with_parent {
            let _ = parent_gone().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let node = Node::start(config).await.context("the node did not start")?;
    let mut failure = None;
    let reason = tokio::select! {
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
