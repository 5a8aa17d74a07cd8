//! How many tasks of each kind were sent and run.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::task::TaskKind;

/// Counts of one node.
#[derive(Debug)]
pub(crate) struct Counts(Vec<Row>);

#[derive(Debug, Default)]
struct Row {
    sent: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
}

/// The counts of one kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskCount {
    /// The kind.
    pub kind: TaskKind,
    /// Made for other nodes; one for all of them counts once.
    pub sent: u64,
    /// Run here, for any node.
    pub done: u64,
    /// Refused here.
    pub refused: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts(TaskKind::ALL.iter().map(|_| Row::default()).collect())
    }
}

impl Counts {
    fn row(&self, kind: TaskKind) -> Option<&Row> {
        self.0.get(kind as usize)
    }

    pub(crate) fn sent(&self, kind: TaskKind) {
        if let Some(row) = self.row(kind) {
            row.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn ran(&self, kind: TaskKind, done: bool) {
        if let Some(row) = self.row(kind) {
            let count = if done { &row.done } else { &row.refused };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn all(&self) -> Vec<TaskCount> {
        let rows = TaskKind::ALL.iter().zip(&self.0);
        rows.map(|(kind, row)| TaskCount {
            kind: *kind,
            sent: row.sent.load(Ordering::Relaxed),
            done: row.done.load(Ordering::Relaxed),
            refused: row.refused.load(Ordering::Relaxed),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_row_of_its_own() {
        let counts = Counts::default();
        for kind in TaskKind::ALL {
            counts.sent(*kind);
            counts.ran(*kind, true);
        }
        for (row, kind) in counts.all().iter().zip(TaskKind::ALL) {
            assert_eq!(*row, TaskCount { kind: *kind, sent: 1, done: 1, refused: 0 });
        }
    }
}
