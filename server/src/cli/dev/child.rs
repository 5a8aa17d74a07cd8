//! One node as a child process: its log, its end.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, Command};
use tokio::task::JoinHandle;

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
        let log = process.stderr.take().map(|stderr| {
            let copy = copy_log(stderr, node.log.clone(), last_lines.clone());
            actix_rt::spawn(copy)
        });
        Ok(Child { name: node.name.clone(), stdin: process.stdin.take(), process, last_lines, log })
    }

    /// Waits for the end of a node that was not asked to end, and says what it said last.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let status = self.process.wait().await;
        if let Some(log) = self.log.take() {
            // The pipe is closed, so this ends.
            let _ = log.await;
        }
        let how = status.map_or_else(|error| error.to_string(), describe);
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
            tracing::warn!(node = %self.name, "node did not end in time and is killed");
            let _ = self.process.kill().await;
        }
        if let Some(log) = self.log.take() {
            let _ = log.await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    status.to_string()
}

/// Copies a node's log to standard error and to its file.
async fn copy_log(stderr: ChildStderr, file: std::path::PathBuf, last: Arc<Mutex<VecDeque<String>>>) {
    let mut copy = tokio::fs::OpenOptions::new().create(true).append(true).open(&file).await.ok();
    let mut console = tokio::io::stderr();
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(mut line)) = lines.next_segment().await {
        line.push(b'\n');
        let _ = console.write_all(&line).await;
        if let Some(copy) = &mut copy {
            let _ = copy.write_all(&line).await;
        }
        let mut last = last.lock();
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    if let Some(copy) = &mut copy {
        let _ = copy.flush().await;
    }
}
