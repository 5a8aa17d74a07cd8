//! Hosts of their own for the nodes of a cluster, and a network between them that fails on command.
//!
//! Each host is a network namespace with one address. They meet on a bridge in a namespace of its own, so the
//! machine's own network is never touched. Needs root, and the tools `ip` and `nft`. Frames that are dropped are
//! gone without a word, as in a real partition; ARP is not, so that a cut of one direction is one.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Tells the test that it runs inside of a lab: its name and the number of its hosts.
const INSIDE: &str = "ALTHING_TEST_LAB";
const RULES: &str = "table bridge lab {
    set cut { type ifname . ifname; }
    chain loss { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ether type != arp iifname . oifname @cut drop
        ether type != arp jump loss
    }
}";

/// A number of hosts; host 0 is that of the clients, the others are those of the nodes.
#[derive(Debug)]
pub struct Lab {
    name: String,
    nodes: usize,
    /// Whether dropping it takes it down.
    owned: bool,
}

impl Lab {
    /// The lab in which this test runs, if it does.
    #[must_use]
    pub fn inside() -> Option<Lab> {
        let text = std::env::var(INSIDE).ok()?;
        let (name, nodes) = text.split_once(' ')?;
        Some(Lab { name: name.to_owned(), nodes: nodes.parse().ok()?, owned: false })
    }

    /// Builds a lab for `nodes` nodes and runs the test called `test` once more, in its host 0; there
    /// [`Lab::inside`] returns it.
    ///
    /// # Errors
    /// A lab that cannot be built, or a test that fails.
    pub fn run(nodes: usize, test: &str) -> Result<()> {
        let lab = Lab { name: format!("at{}", std::process::id()), nodes, owned: true };
        lab.build()?;
        let status = Command::new("ip")
            .args(["netns", "exec", &lab.host(0)])
            .arg(std::env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, format!("{} {nodes}", lab.name))
            .status()?;
        ensure!(status.success(), "{test} failed in its lab: {status}");
        Ok(())
    }

    /// Why no lab can be built here; `None` when one can.
    #[must_use]
    pub fn missing() -> Option<&'static str> {
        let works = |program: &str, argument: &str| {
            let mut command = Command::new(program);
            let status = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        (!root || !works("ip", "netns") || !works("nft", "--version"))
            .then_some("needs root, ip netns and nft")
    }

    /// Addresses and namespaces of the nodes.
    #[must_use]
    pub fn hosts(&self) -> Vec<(IpAddr, Option<String>)> {
        (1..=self.nodes).map(|host| (address(host), Some(self.host(host)))).collect()
    }

    /// From now on what node `from` sends does not reach node `to`.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.nft(&format!("add element bridge lab cut {{ \"v{}\" . \"v{}\" }}", from + 1, to + 1))
    }

    /// From now on so many of a hundred frames are lost, everywhere.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn lose(&self, percent: u32) -> Result<()> {
        self.nft(&format!("add rule bridge lab loss numgen random mod 100 < {percent} drop"))
    }

    /// The network is whole again.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn heal(&self) -> Result<()> {
        self.nft("flush set bridge lab cut\nflush chain bridge lab loss")
    }

    fn host(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    fn build(&self) -> Result<()> {
        let switch = self.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        self.nft(RULES)?;
        for number in 0..=self.nodes {
            let host = self.host(number);
            ip(&format!("netns add {host}"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {switch} link add v{number} type veth peer name eth0 netns {host}"))?;
            ip(&format!("-n {switch} link set v{number} master br0 up"))?;
            ip(&format!("-n {host} addr add {}/24 dev eth0", address(number)))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(())
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch(), "nft", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().context("nft cannot be started")?;
        child.stdin.take().context("no pipe")?.write_all(rules.as_bytes())?;
        ensure!(child.wait()?.success(), "nft refused {rules}");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned {
            let hosts = (0..=self.nodes).map(|number| self.host(number));
            for namespace in hosts.chain([self.switch()]) {
                // What was never built cannot be removed.
                let _ = ip(&format!("netns del {namespace}"));
            }
        }
    }
}

fn address(host: usize) -> IpAddr {
    let last = u8::try_from(10 + host).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, last))
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("ip cannot be started")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
