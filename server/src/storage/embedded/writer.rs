//! The one thread that writes: takes what has gathered, applies it in order, writes one batch, flushes
//! once, answers all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use althing_proto::jid::BareJid;
use tokio::sync::{mpsc, oneshot};

use super::super::StorageError;
use super::apply::{View, finish_deletion};
use super::command::{Command, Reply};
use super::fault::Fault;
use super::rows::Rows;

/// Most commands that share one flush. Bounds how long readers wait for a batch: some milliseconds.
const GROUP: usize = 512;

/// Most rows of a batch before the rest of the group goes into another one.
const ROWS_PER_BATCH: usize = 2_048;

/// Something for the writer to do.
pub(super) struct Write {
    /// What to apply; `None` only asks for the flush.
    pub(super) command: Option<Command>,
    /// Is answered when the command and everything before it are durable.
    pub(super) reply: oneshot::Sender<Result<Reply, StorageError>>,
}

/// Runs until all senders are gone and the queue is empty. Then lets go of the database.
pub(super) fn run(rows: &Arc<Rows>, mut queue: mpsc::Receiver<Write>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        if catch_unwind(AssertUnwindSafe(|| work(rows, &mut group))).is_err() {
            // Whoever waits learns of the failure when the sender of the answer is dropped.
            let _remembered = rows.fail_panicked();
            group.clear();
        }
    }
}

fn work(rows: &Rows, group: &mut Vec<Write>) {
    let (commands, replies): (Vec<_>, Vec<_>) =
        group.drain(..).map(|write| (write.command, write.reply)).unzip();
    let answers = commit(rows, commands).unwrap_or_else(|error| vec![Err(error); replies.len()]);
    for (reply, answer) in replies.into_iter().zip(answers) {
        // A receiver that is gone does not want its answer.
        let _gone = reply.send(answer);
    }
}

/// Applies `commands` and flushes. The outer error means that the group may be on disk or not: the store
/// then refuses every further write, since after a failed flush nobody knows what the disk has.
fn commit(
    rows: &Rows,
    commands: Vec<Option<Command>>,
) -> Result<Vec<Result<Reply, StorageError>>, StorageError> {
    if let Some(failure) = rows.failure() {
        return Err(failure);
    }
    let mut answers = Vec::with_capacity(commands.len());
    let written = (|| {
        let mut view = View::new(rows.tree());
        for command in commands {
            answers.push(command.map_or(Ok(Reply::Done(true)), |command| {
                view.apply(command).map_err(|fault| rows.explain(fault, "apply a change to"))
            }));
            if view.is_unfinished() || view.len() >= ROWS_PER_BATCH {
                write(rows, std::mem::replace(&mut view, View::new(rows.tree())))?;
            }
        }
        if view.len() > 0 {
            write(rows, view)?;
        }
        rows.flush()
    })();
    match written {
        Ok(()) => Ok(answers),
        Err(fault) => Err(rows.fail(fault)),
    }
}

fn write(rows: &Rows, view: View<'_>) -> Result<(), Fault> {
    let (batch, unfinished) = view.into_batch();
    rows.write(batch)?;
    unfinished.map_or(Ok(()), |user| delete_rest(rows, &user))
}

/// Carries an unfinished deletion to its end.
pub(super) fn delete_rest(rows: &Rows, user: &BareJid) -> Result<(), Fault> {
    loop {
        let (batch, last) = finish_deletion(rows.tree(), user)?;
        rows.write(batch)?;
        if last {
            return Ok(());
        }
    }
}
