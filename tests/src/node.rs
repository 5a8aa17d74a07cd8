//! A node as a real process: started, killed, paused, started again on the same data.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deadline::within_time;
use crate::endpoint::Endpoint;
use crate::setup::{COMPONENTS, COMPONENTS_TLS, DOMAIN, Setup, binary, client_certificates, free_address};

/// How long a node may take to serve, and to end.
pub(crate) const START: Duration = Duration::from_secs(30);
/// Between two looks at a condition that tells nobody when it changes.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// One node and its process. Dropping it kills the process; while a test panics, the end of the node's log
/// is shown.
pub struct TestNode {
    setup: Setup,
    process: Option<Child>,
    /// Its directory, where it is its own and no cluster's.
    owned: Option<TempDir>,
}

impl TestNode {
    /// Starts a node with open registration, a server by itself; `overlay` is TOML laid over its configuration.
    ///
    /// # Errors
    /// No binary, a wrong overlay, or a node that does not serve in time (with the end of its log).
    pub async fn start(overlay: &str) -> Result<TestNode> {
        let directory = tempfile::Builder::new().prefix("althing-test-").tempdir()?;
        let setup = Setup {
            name: "node-0".to_owned(),
            address: free_address()?,
            directory: directory.path().to_owned(),
            certificates: directory.path().join("certs"),
            overlay: overlay.to_owned(),
            namespace: None,
            cluster: None,
        };
        client_certificates(&setup.certificates)?;
        let mut node = TestNode::prepare(setup)?;
        node.owned = Some(directory);
        node.restart().await?;
        Ok(node)
    }

    /// A node that is configured, but not started.
    ///
    /// # Errors
    /// As [`Setup::write`].
    pub fn prepare(setup: Setup) -> Result<TestNode> {
        setup.write()?;
        Ok(TestNode { setup, process: None, owned: None })
    }

    /// Starts the process again on the same data and addresses and waits until it serves.
    ///
    /// # Errors
    /// It still runs, or does not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.until_ready().await
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} still runs", self.setup.name);
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let child = self
            .command()?
            .args(["run", "--exit-with-parent", "--config"])
            .arg(self.setup.file())
            // The node ends when this pipe closes, so that a killed test leaves no orphan.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the node cannot be started")?;
        self.process = Some(child);
        Ok(())
    }

    /// `ip netns exec` becomes the node, so that its process id is the node's.
    fn command(&self) -> Result<Command> {
        let binary = binary()?;
        let Some(namespace) = &self.setup.namespace else { return Ok(Command::new(binary)) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary);
        Ok(command)
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ends, or does not serve in time (with the end of its log).
    pub async fn until_ready(&mut self) -> Result<()> {
        let ready = within_time(START, "serving", async {
            loop {
                ensure!(self.is_alive(), "the node ended");
                match self.http("/readyz").await {
                    Ok((200, _)) => return Ok(()),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        });
        if let Err(error) = ready.await {
            let probe = self.http("/readyz?verbose").await.map(|(_, body)| body);
            let (name, log) = (&self.setup.name, self.log_end());
            bail!("{name}: {error:#}; its probe says {probe:?}; the end of its log:\n{log}");
        }
        Ok(())
    }

    /// What it was started with.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where clients reach it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            domain: DOMAIN.to_owned(),
            c2s: SocketAddr::new(self.setup.address, 5222),
            c2s_tls: SocketAddr::new(self.setup.address, 5223),
            components: Some(SocketAddr::new(self.setup.address, COMPONENTS)),
            components_tls: Some(SocketAddr::new(self.setup.address, COMPONENTS_TLS)),
            authority: self.setup.certificates.join("ca.pem"),
        }
    }

    /// Asks its HTTP door; returns status and body.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub async fn http(&self, path: &str) -> Result<(u16, String)> {
        within_time(Duration::from_secs(5), path, async {
            let mut stream = TcpStream::connect(SocketAddr::new(self.setup.address, 5280)).await?;
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
        self.signal("TERM")?;
        let mut child = self.process.take().context("the node does not run")?;
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

    /// SIGSTOP: it stands still and tells nobody.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT: it goes on where it was paused.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Errors
    /// It does not run.
    pub fn hang_up(&self) -> Result<()> {
        self.signal("HUP")
    }

    /// Writes its configuration anew, with this overlay, and does nothing else.
    ///
    /// # Errors
    /// As [`Setup::write`].
    pub fn rewrite(&mut self, overlay: &str) -> Result<()> {
        self.setup.overlay = overlay.to_owned();
        self.setup.write().map(drop)
    }

    /// `althing reload`: its exit code, and all that it says.
    ///
    /// # Errors
    /// It cannot be started, or does not end in time.
    pub async fn reload(&self) -> Result<(i32, String)> {
        let mut command = tokio::process::Command::new(binary()?);
        command.arg("reload").arg("--config").arg(self.setup.file());
        within_time(START, "reload", async {
            let output = command.output().await?;
            let said = [output.stdout, output.stderr].concat();
            Ok((output.status.code().context("killed")?, String::from_utf8(said)?))
        })
        .await
    }

    /// The standard library has no signal but SIGKILL.
    fn signal(&self, name: &str) -> Result<()> {
        let child = self.process.as_ref().context("the node does not run")?;
        let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -{name} failed");
        Ok(())
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
        self.setup.directory.join("log")
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
            let _ =
                writeln!(std::io::stderr(), "the end of the log of {}:\n{}", self.setup.name, self.log_end());
        }
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
