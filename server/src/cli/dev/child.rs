//! One node as a child process: its log, its end.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tokio::process::{ChildStdin, Command};

use super::layout::NodeFiles;

/// Lines of a node's log that are shown when it ends unexpectedly.
const LAST_LINES: usize = 20;

/// A running node. Dropping it kills the process.
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    /// Closing it asks the node to end: it runs with `--exit-with-parent`, so that a killed parent
    /// leaves no orphans, and an asked one takes the same road.
    stdin: Option<ChildStdin>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    log: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts the node from this very executable.
    pub(super) fn start(node: &NodeFiles) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let mut process = Command::new(program)
            .args(["run", "--exit-with-parent", "--config"])
            .arg(&node.config_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", node.name))?;
        let last_lines = Arc::new(Mutex::new(VecDeque::with_capacity(LAST_LINES)));
        let log = match process.stderr.take() {
            Some(stderr) => {
                let log = File::from(stderr.into_owned_fd()?);
                let (file, last) = (node.log.clone(), last_lines.clone());
                Some(std::thread::spawn(move || copy_log(log, &file, &last)))
            }
            None => None,
        };
        Ok(Child { name: node.name.clone(), stdin: process.stdin.take(), process, last_lines, log })
    }

    /// Waits for the end of a node that was not asked to end, and says what it said last.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let status = self.process.wait().await;
        self.finish_log();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let lines: Vec<String> = self.last_lines.lock().iter().map(|line| format!("\n    {line}")).collect();
        anyhow!("{} ended unexpectedly ({how}); its last words:{}", self.name, lines.concat())
    }

    /// Asks the node to end; returns at once.
    pub(super) fn ask_to_end(&mut self) {
        self.stdin = None;
    }

    /// Waits until `deadline` for the end, then kills.
    pub(super) async fn end_by(mut self, deadline: Instant) {
        if tokio::time::timeout_at(deadline.into(), self.process.wait()).await.is_err() {
            tracing::warn!(node = %self.name, "a node did not end in time and is killed");
            let _ = self.process.kill().await;
        }
        self.finish_log();
    }

    /// Waits for the rest of the log; the node has ended and its pipe with it.
    fn finish_log(&mut self) {
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// Copies a node's log to standard error and to its file, until the node closes it.
fn copy_log(log: File, file: &Path, last: &Mutex<VecDeque<String>>) {
    let mut copy = OpenOptions::new().create(true).append(true).open(file).ok();
    let mut lines = BufReader::new(log);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        // A full disk or a closed console must not stop the node, which waits for this pipe.
        let _ = std::io::stderr().write_all(&line);
        if let Some(copy) = &mut copy {
            let _ = copy.write_all(&line);
        }
        let mut last = last.lock();
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}
