//! `althing dev`: a development server on loopback, ready to log in to.

mod child;
mod layout;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::accounts::Accounts;
use super::console::say;
use super::signals::EndSignals;
use crate::admin::probe;
use child::Child;
use layout::NodeFiles;

/// Demo accounts, made by `--demo`.
const DEMO_USERS: [&str; 2] = ["alice", "bob"];
/// Their password. It is public, which is why demo accounts exist on loopback only.
const DEMO_PASSWORD: &str = "althing-demo";
/// How long a node may take to become ready.
const START: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);
/// Time between two looks at a starting node.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `althing dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Number of nodes; node i listens on 127.0.0.(i+1)
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// Domain of the server
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    domain: String,
    /// Directory for certificates, configuration, data and logs; made when missing
    #[arg(long, value_name = "DIR", default_value = ".dev")]
    data: PathBuf,
    /// Let clients make accounts (XEP-0077), without rate limits
    #[arg(long)]
    registration: bool,
    /// Let clients log in without TLS
    #[arg(long)]
    plaintext: bool,
    /// Make the accounts alice and bob, password "althing-demo"
    #[arg(long)]
    demo: bool,
    /// Configuration laid over the one that is made
    #[arg(long = "config", value_name = "OVERLAY.toml")]
    overlay: Option<PathBuf>,
}

/// Runs the nodes as children of this process until a signal.
pub(super) fn dev(args: &DevArgs) -> anyhow::Result<ExitCode> {
    if args.nodes != 1 {
        bail!("--nodes {}: only 1 for now; more come with clustering", args.nodes);
    }
    let nodes = layout::prepare(args)?;
    for node in &nodes {
        check_ports(node)?;
    }
    actix_rt::System::new().block_on(serve(args, &nodes))
}

/// Says at once, and by name, which port is taken; a foreign server could even answer our probe.
fn check_ports(node: &NodeFiles) -> anyhow::Result<()> {
    let listen = &node.config.listen;
    for address in listen.c2s.iter().chain(&listen.c2s_tls).chain([&listen.http]) {
        TcpListener::bind(address).with_context(|| {
            format!("{}: {address} cannot be listened on; does another server run?", node.name)
        })?;
    }
    Ok(())
}

async fn serve(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::catch().context("signals cannot be caught")?;
    if args.demo {
        make_demo_accounts(args, nodes).await?;
    }
    let mut children = Vec::new();
    for node in nodes {
        children.push(Child::start(node)?);
    }
    let outcome = tokio::select! {
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        outcome = watch(args, nodes, &mut children) => outcome,
    };
    let deadline = Instant::now() + STOP;
    for child in &mut children {
        child.ask_to_end();
    }
    for child in children {
        child.end_by(deadline).await;
    }
    outcome
}

/// Waits until all nodes are ready, says so, then until one ends that should not.
async fn watch(args: &DevArgs, nodes: &[NodeFiles], children: &mut [Child]) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + START;
    for (node, child) in nodes.iter().zip(children.iter_mut()) {
        tokio::select! {
            error = child.ended() => return Err(error),
            ready = wait_ready(node, deadline) => ready?,
        }
    }
    introduce(args, nodes)?;
    say("ready")?;
    // One after the other would miss the death of a later one.
    let (error, _, _) =
        futures_util::future::select_all(children.iter_mut().map(|child| Box::pin(child.ended()))).await;
    Err(error)
}

async fn wait_ready(node: &NodeFiles, deadline: Instant) -> anyhow::Result<()> {
    let http = node.config.listen.http;
    loop {
        let answer = probe::get(http, "/readyz", Duration::from_secs(2)).await;
        if matches!(answer, Ok((200, _))) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let seen =
                answer.map_or_else(|error| error.to_string(), |(status, body)| format!("{status} {body}"));
            bail!("{} was not ready after {} s: http://{http}/readyz: {seen}", node.name, START.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn make_demo_accounts(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<()> {
    let Some(first) = nodes.first() else { return Ok(()) };
    let listen = &first.config.listen;
    if let Some(open) = listen.c2s.iter().chain(&listen.c2s_tls).find(|address| !address.ip().is_loopback()) {
        bail!("--demo makes accounts with a public password, but {open} can be reached from outside");
    }
    let accounts = Accounts::open(&first.config)?;
    let made = async {
        for user in DEMO_USERS {
            accounts.add(&format!("{user}@{}", args.domain), DEMO_PASSWORD).await?;
        }
        Ok(())
    }
    .await;
    accounts.close().await?;
    made
}

/// How to log in, and where to look.
fn introduce(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<()> {
    let list =
        |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    for node in nodes {
        let listen = &node.config.listen;
        say(format_args!("{}", node.name))?;
        say(format_args!(
            "  XMPP     {} (STARTTLS), {} (direct TLS)",
            list(&listen.c2s),
            list(&listen.c2s_tls)
        ))?;
        say(format_args!("  metrics  http://{}/metrics", listen.http))?;
        say(format_args!("  health   http://{}/readyz?verbose", listen.http))?;
        say(format_args!("  config   {}", node.config_file.display()))?;
        say(format_args!("  log      {}", node.log.display()))?;
    }
    if let Some(first) = nodes.first() {
        say(format_args!("trust this CA in your client: {}", first.ca.display()))?;
    }
    if args.demo {
        let users = DEMO_USERS.map(|user| format!("{user}@{}", args.domain)).join(" or ");
        say(format_args!("log in as {users}, password {DEMO_PASSWORD}"))?;
    }
    if args.registration {
        say("clients may make accounts (XEP-0077)")?;
    }
    say("Ctrl-C stops it.")?;
    Ok(())
}
