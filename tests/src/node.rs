//! A node as a real process: configured, started, killed, started again on the same data.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deadline::within_time;
use crate::endpoint::Endpoint;

/// The domain of all test nodes.
pub const DOMAIN: &str = "localhost";
/// How long a node may take to serve, and to end.
const START: Duration = Duration::from_secs(30);
/// Between two looks at a condition that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(20);

/// One node, its directory and its process. Dropping it kills the process; while a test panics, the end of
/// the node's log is shown.
pub struct TestNode {
    directory: TempDir,
    address: IpAddr,
    process: Option<Child>,
}

impl TestNode {
    /// Starts a node with open registration; `overlay` is TOML laid over its configuration.
    ///
    /// # Errors
    /// No binary, a wrong overlay, or a node that does not serve in time (with the end of its log).
    pub async fn start(overlay: &str) -> Result<TestNode> {
        let directory = tempfile::Builder::new().prefix("althing-test-").tempdir()?;
        let address = free_address()?;
        make_certificates(&directory.path().join("certs"))?;
        let config = config(directory.path(), address, overlay)?;
        std::fs::write(directory.path().join("althing.toml"), config)?;
        let mut node = TestNode { directory, address, process: None };
        node.restart().await?;
        Ok(node)
    }

    /// Starts the process again on the same data and addresses and waits until it serves.
    ///
    /// # Errors
    /// It still runs, or does not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the node still runs");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let child = Command::new(binary()?)
            .args(["run", "--exit-with-parent", "--config"])
            .arg(self.directory.path().join("althing.toml"))
            // The node ends when this pipe closes, so that a killed test leaves no orphan.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the node cannot be started")?;
        self.process = Some(child);
        if let Err(error) = within_time(START, "serving", self.until_ready()).await {
            bail!("{error:#}; the end of its log:\n{}", self.log_end());
        }
        Ok(())
    }

    async fn until_ready(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.process.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                self.process = None;
                bail!("the node ended with {status}");
            }
            match self.http("/readyz").await {
                Ok((200, _)) => return Ok(()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            domain: DOMAIN.to_owned(),
            c2s: SocketAddr::new(self.address, 5222),
            c2s_tls: SocketAddr::new(self.address, 5223),
            authority: self.directory.path().join("certs/ca.pem"),
        }
    }

    /// Asks its HTTP door; returns status and body.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub async fn http(&self, path: &str) -> Result<(u16, String)> {
        within_time(Duration::from_secs(5), path, async {
            let mut stream = TcpStream::connect(SocketAddr::new(self.address, 5280)).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer);
            let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
            Ok((status, body.to_owned()))
        })
        .await
    }

    /// SIGKILL: no goodbye. Waits until the process is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the node does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM: an orderly end. Returns whether it reported success.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub async fn terminate(&mut self) -> Result<bool> {
        let mut child = self.process.take().context("the node does not run")?;
        // The standard library has no signal but SIGKILL.
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -TERM failed");
        let ended = within_time(START, "ending after SIGTERM", async {
            loop {
                match child.try_wait()? {
                    Some(status) => return Ok(status.success()),
                    None => tokio::time::sleep(POLL).await,
                }
            }
        })
        .await;
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended
    }

    /// Resident memory of the process in bytes (`VmRSS`).
    ///
    /// # Errors
    /// It does not run.
    pub fn resident(&self) -> Result<u64> {
        let child = self.process.as_ref().context("the node does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("no number")?;
        Ok(kib * 1024)
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has logged so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Not by a macro: the test harness would keep it from the screen.
            let _ = writeln!(std::io::stderr(), "the end of the node's log:\n{}", self.log_end());
        }
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `althing` binary: `ALTHING_BIN`, or the one built beside the running test.
///
/// # Errors
/// When there is none; says how to get one.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ALTHING_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ALTHING_BIN is {}, where no file is", path.display());
        return Ok(path);
    }
    let test = std::env::current_exe()?;
    // A test stands in target/PROFILE/deps, the binary in target/PROFILE.
    let found = test.ancestors().skip(1).map(|place| place.join("althing")).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `althing` beside {}: run `cargo build --bin althing`, or set ALTHING_BIN", test.display())
    })
}

/// An address in 127.0.0.0/8 of its own, so that nodes of tests that run side by side can all have the
/// ordinary ports, and none can be lost to another process between two starts.
fn free_address() -> Result<IpAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // From 127.1.0.0 on; the first block belongs to `althing dev`.
        let number = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, high, middle, low] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 1 + high % 200, middle, 1 + low % 250));
        let free = |port| TcpListener::bind(SocketAddr::new(address, port)).is_ok();
        if free(5222) && free(5223) && free(5280) {
            return Ok(address);
        }
    }
    bail!("no free address in 127.0.0.0/8")
}

fn make_certificates(directory: &Path) -> Result<()> {
    let output = Command::new(binary()?)
        .args(["cert", "dev", "--domain", DOMAIN, "--dir"])
        .arg(directory)
        .output()
        .context("`althing cert dev` cannot be started")?;
    ensure!(output.status.success(), "`althing cert dev`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The configuration of a node in `directory`, with `overlay` laid over it.
fn config(directory: &Path, address: IpAddr, overlay: &str) -> Result<String> {
    let place = |name: &str| toml::Value::String(directory.join(name).display().to_string());
    let (data, certificate, key) = (place("data"), place("certs/server.pem"), place("certs/server.key"));
    let base = format!(
        "[xmpp]\ndomains = [\"{DOMAIN}\"]\n\
         [node]\nname = \"node-0\"\ndata_dir = {data}\n\
         [listen]\nc2s = [\"{address}:5222\"]\nc2s_tls = [\"{address}:5223\"]\nhttp = \"{address}:5280\"\n\
         [tls]\ncertificate = {certificate}\nkey = {key}\n\
         [registration]\nenabled = true\nunlimited_on_loopback = true\n"
    );
    let mut table: toml::Table = base.parse()?;
    lay_over(&mut table, overlay.parse().context("the overlay is no TOML")?);
    Ok(table.to_string())
}

fn lay_over(base: &mut toml::Table, overlay: toml::Table) {
    for (key, value) in overlay {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => lay_over(inner, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_changes_a_key_and_keeps_its_neighbours() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let text = config(Path::new("x"), address, "[listen]\nhttp = \"no\"\n[limits]\nn = 1\n").unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["listen"]["http"].as_str(), Some("no"));
        assert_eq!(table["listen"]["c2s"][0].as_str(), Some("127.0.0.1:5222"));
        assert_eq!(table["limits"]["n"].as_integer(), Some(1));
    }
}
