//! `althing dev`: a development server on loopback, ready to log in to.

mod child;
mod layout;
mod ready;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use althing_proto::sasl::Secret;

use super::console::say;
use super::door::Door;
use super::signals::EndSignals;
use crate::admin::AdminClient;
use crate::admin::protocol::{Answer, Request};
use child::Child;
use layout::NodeFiles;

/// Demo accounts, made by `--demo`.
const DEMO_USERS: [&str; 2] = ["alice", "bob"];
/// Their password. It is public, which is why demo accounts exist on loopback only.
const DEMO_PASSWORD: &str = "althing-demo";
/// Most nodes.
const MAX_NODES: usize = 9;
/// How long the nodes may take to become ready.
const START: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(20);

/// Arguments of `althing dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Number of nodes; node i listens on 127.0.0.(i+1)
    ///
    /// More than one make a cluster, whose first nodes are those of the first start. Later there may be more.
    #[arg(long, value_name = "N", default_value = "1", value_parser = nodes)]
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
    /// Let an external component attach (XEP-0114), port 5347; may be given several times
    #[arg(long = "component", value_name = "DOMAIN=SECRET")]
    components: Vec<String>,
    /// Make the accounts alice and bob, password "althing-demo"
    #[arg(long)]
    demo: bool,
    /// Configuration laid over the one that is made
    #[arg(long = "config", value_name = "OVERLAY.toml")]
    overlay: Option<PathBuf>,
}

fn nodes(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|nodes| (1..=MAX_NODES).contains(nodes)).ok_or(format!("1 to {MAX_NODES}"))
}

/// Runs the nodes as children of this process until a signal.
pub(super) fn dev(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let nodes = layout::prepare(args)?;
    for node in &nodes {
        check_ports(node)?;
    }
    actix_rt::System::new().block_on(serve(args, &nodes))
}

/// Says at once, and by name, which port is taken; a foreign server could even answer our probe.
fn check_ports(node: &NodeFiles) -> anyhow::Result<()> {
    let (listen, cluster) = (&node.config.listen, &node.config.cluster);
    let links = cluster.enabled.then_some(&cluster.listen);
    let web = listen.web.iter().chain(&listen.web_tls).chain(&node.config.components.listen);
    for address in listen.c2s.iter().chain(&listen.c2s_tls).chain(web).chain([&listen.http]).chain(links) {
        TcpListener::bind(address).with_context(|| {
            format!("{}: {address} cannot be listened on; does another server run?", node.name)
        })?;
    }
    Ok(())
}

async fn serve(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::catch().context("signals cannot be caught")?;
    if args.demo {
        check_loopback(nodes)?;
    }
    // A single node's store is free now. In a cluster the running nodes make accounts together.
    if args.demo && nodes.len() == 1 {
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
    tokio::select! {
        error = one_ended(children) => return Err(error),
        begun = begin(args, nodes) => begun?,
    }
    Err(one_ended(children).await)
}

/// One after the other would miss the death of a later one.
async fn one_ended(children: &mut [Child]) -> anyhow::Error {
    let ended = children.iter_mut().map(|child| Box::pin(child.ended()));
    futures_util::future::select_all(ended).await.0
}

async fn begin(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<()> {
    ready::wait(nodes, START).await?;
    if args.demo && nodes.len() > 1 {
        make_demo_accounts(args, nodes).await.context("the demo accounts cannot be made")?;
    }
    introduce(args, nodes)?;
    if nodes.len() > 1 {
        say(format_args!("leaders: {}", leaders(nodes).await?))?;
    }
    say("Ctrl-C stops it.")?;
    Ok(say("ready")?)
}

/// Who leads, as the first node sees it.
async fn leaders(nodes: &[NodeFiles]) -> anyhow::Result<String> {
    let Some(first) = nodes.first() else { return Ok(String::new()) };
    let client = AdminClient::connect(&first.config.node.data_dir).await?;
    let mut client = client.with_context(|| format!("{} has no admin socket", first.name))?;
    let Answer::ClusterStatus(status) = client.ask(&Request::ClusterStatus).await? else {
        bail!("{} answers something else than was asked", first.name);
    };
    let leaders = status
        .groups
        .iter()
        .map(|group| format!("{} leads {}", group.leader.as_deref().unwrap_or("nobody known"), group.name));
    let leaders = leaders.collect::<Vec<_>>().join(", ");
    Ok(if leaders.is_empty() { "none, the nodes make no cluster".to_owned() } else { leaders })
}

fn check_loopback(nodes: &[NodeFiles]) -> anyhow::Result<()> {
    for node in nodes {
        let listen = &node.config.listen;
        let addresses = [&listen.c2s, &listen.c2s_tls, &listen.web, &listen.web_tls].into_iter().flatten();
        let open = addresses.into_iter().find(|address| !address.ip().is_loopback());
        if let Some(open) = open {
            bail!("--demo makes accounts with a public password, but {open} can be reached from outside");
        }
    }
    Ok(())
}

/// Those that are there already stay as they are.
async fn make_demo_accounts(args: &DevArgs, nodes: &[NodeFiles]) -> anyhow::Result<()> {
    let Some(first) = nodes.first() else { return Ok(()) };
    let mut door = Door::by(&first.config).await?;
    let made = async {
        for user in DEMO_USERS {
            door.add(&format!("{user}@{}", args.domain), Secret::new(DEMO_PASSWORD)).await?;
        }
        Ok(())
    }
    .await;
    door.close().await?;
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
        for (scheme, addresses) in [("wss", &listen.web_tls), ("ws", &listen.web)] {
            for address in addresses {
                say(format_args!("  browsers {scheme}://{address}/xmpp-websocket"))?;
            }
        }
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
    Ok(())
}
