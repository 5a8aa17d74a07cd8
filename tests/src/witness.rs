//! Asks all nodes, again and again, where certain JIDs are: at one index of the log all must say the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use crate::admin::{self, RouteReport, SessionReport};

/// Between two rounds of questions.
const PACE: Duration = Duration::from_millis(250);

/// A witness at work.
pub struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<usize>>,
}

/// What has been said so far.
#[derive(Debug, Default)]
struct Statements {
    /// By JID and index.
    sessions: BTreeMap<(String, u64), Vec<SessionReport>>,
    /// By JID and bind index: node and its incarnation.
    owners: BTreeMap<(String, u64), (String, u64)>,
}

impl Witness {
    /// Begins to ask the nodes with these data directories about these full JIDs.
    #[must_use]
    pub fn begin(nodes: Vec<PathBuf>, jids: Vec<String>) -> Witness {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut statements, mut pace) = (Statements::default(), tokio::time::interval(PACE));
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                for node in &nodes {
                    for jid in &jids {
                        if let Some(report) = at_one_index(node, jid).await {
                            statements.add(jid, report)?;
                        }
                    }
                }
            }
            Ok(statements.sessions.len())
        });
        Witness { stop, task }
    }

    /// Ends it; returns how many different statements were compared.
    ///
    /// # Errors
    /// Two that contradict each other.
    pub async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// A report whose sessions are those of its index: nothing was applied between two questions.
async fn at_one_index(node: &Path, jid: &str) -> Option<RouteReport> {
    let before = admin::route(node, jid).await.ok()?;
    let report = admin::route(node, jid).await.ok()?;
    (before.applied == report.applied).then_some(report)
}

impl Statements {
    fn add(&mut self, jid: &str, report: RouteReport) -> Result<()> {
        ensure!(report.sessions.len() <= 1, "{jid} has several owners: {report:?}");
        for session in &report.sessions {
            let owner = (session.node_id.clone(), session.incarnation);
            let known = self.owners.entry((jid.to_owned(), session.bind)).or_insert_with(|| owner.clone());
            ensure!(*known == owner, "bind {} of {jid} is at {owner:?} and at {known:?}", session.bind);
        }
        let mut sessions = report.sessions;
        // Names come from elsewhere than the table.
        sessions.iter_mut().for_each(|session| session.node = None);
        let key = (jid.to_owned(), report.applied);
        let known = self.sessions.entry(key).or_insert_with(|| sessions.clone());
        ensure!(*known == sessions, "at index {} {jid} is at {sessions:?} and at {known:?}", report.applied);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(applied: u64, bind: u64, node: &str) -> RouteReport {
        let session =
            SessionReport { jid: "a".to_owned(), node_id: node.to_owned(), node: None, incarnation: 1, bind };
        RouteReport { applied, sessions: vec![session] }
    }

    #[test]
    fn contradictions_are_found() {
        let mut statements = Statements::default();
        statements.add("a", report(1, 1, "x")).unwrap();
        statements.add("a", report(2, 2, "y")).unwrap();
        statements.add("b", report(2, 3, "x")).unwrap();
        assert!(statements.add("a", report(3, 2, "x")).is_err());
        assert!(statements.add("a", report(2, 4, "y")).is_err());
        let mut two = report(5, 5, "x");
        two.sessions.push(two.sessions[0].clone());
        assert!(statements.add("a", two).is_err());
    }
}
