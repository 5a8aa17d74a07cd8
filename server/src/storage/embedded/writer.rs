//! The one thread that writes: takes what has gathered, applies it in order, writes one batch, flushes
//! once, answers all. Work of a replica has its turn in the same queue, and does not flush.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use althing_cluster::store_log::Seal;
use althing_proto::jid::BareJid;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::super::StorageError;
use super::apply::{View, finish_deletion};
use super::command::Command;
use super::fault::Fault;
use super::keys;
use super::reply::Reply;
use super::rows::Rows;

/// Most commands that share one flush. Bounds how long readers wait for a batch: some milliseconds.
const GROUP: usize = 512;

/// Something for the writer to do.
pub(super) enum Write {
    /// A change that is durable when it is answered.
    Command {
        /// What to apply; `None` only asks for the flush. Boxed: the queue is long, and mostly empty.
        command: Option<Box<Command>>,
        /// Is answered when the command and everything before it are durable.
        reply: oneshot::Sender<Result<Reply, StorageError>>,
    },
    /// Something that runs alone in its turn, its answer included.
    Alone(Box<dyn FnOnce(&Rows) + Send>),
}

/// Commands that wait for one flush, each with whoever waits for it.
type Group = (Vec<Option<Box<Command>>>, Vec<oneshot::Sender<Result<Reply, StorageError>>>);

/// Runs until all senders are gone and the queue is empty. Then lets go of the database.
pub(super) fn run(rows: &Arc<Rows>, mut queue: mpsc::Receiver<Write>) {
    let mut taken = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut taken, GROUP) > 0 {
        if catch_unwind(AssertUnwindSafe(|| work(rows, &mut taken))).is_err() {
            // Whoever waits learns of the failure when the sender of the answer is dropped.
            let _remembered = rows.fail_panicked();
            taken.clear();
        }
    }
}

fn work(rows: &Rows, taken: &mut Vec<Write>) {
    let mut group = Group::default();
    for write in taken.drain(..) {
        match write {
            Write::Command { command, reply } => {
                group.0.push(command);
                group.1.push(reply);
            }
            Write::Alone(job) => {
                answer(rows, std::mem::take(&mut group));
                job(rows);
            }
        }
    }
    answer(rows, group);
}

fn answer(rows: &Rows, (commands, replies): Group) {
    if commands.is_empty() {
        return;
    }
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
    commands: Vec<Option<Box<Command>>>,
) -> Result<Vec<Result<Reply, StorageError>>, StorageError> {
    usable(rows)?;
    let mut answers = Vec::with_capacity(commands.len());
    let written = (|| {
        let mut view = View::new(rows.tree());
        for command in commands {
            answers.push(command.map_or(Ok(Reply::Done(true)), |command| {
                view.apply(*command).map_err(|fault| rows.explain(fault, "apply a change to"))
            }));
            if view.is_full() {
                write(rows, std::mem::replace(&mut view, View::new(rows.tree())))?;
            }
        }
        if !view.is_empty() {
            write(rows, view)?;
        }
        rows.flush()
    })();
    match written {
        Ok(()) => Ok(answers),
        Err(fault) => Err(rows.fail(fault)),
    }
}

/// Applies the commands that the store group has ordered and writes `mark` with them, without a flush: the log
/// has them. One reply a command.
///
/// What does not fit into one batch goes into several. Each of them says how many commands after the older mark
/// it has, so that a crash between them leads to no command being applied twice.
///
/// # Errors
/// The store's, after which it writes no more. A damaged row is one too: to go on would leave this replica with
/// other rows than its peers. They have the row still. So is a change of a later release.
pub(super) fn apply_ordered(rows: &Rows, commands: &[Bytes], seal: Seal) -> Result<Vec<Bytes>, StorageError> {
    usable(rows)?;
    try_apply_ordered(rows, commands, seal).map_err(|fault| rows.fail(fault))
}

fn try_apply_ordered(rows: &Rows, commands: &[Bytes], seal: Seal) -> Result<Vec<Bytes>, Fault> {
    let applied_before = rows.ahead()?;
    let mut replies = Vec::with_capacity(commands.len());
    let mut view = View::new(rows.tree());
    for (number, command) in (1_u64..).zip(commands) {
        let reply = match Command::decode(command) {
            _ if number <= applied_before => Reply::Lost(()),
            Ok(command) => view.apply(command)?,
            // The others may know it: whoever goes on without it has other rows from then on.
            Err(error) => return Err(Fault::command(command, &error)),
        };
        replies.push(reply.encode().map_err(|error| Fault::Row(format!("a reply has no form: {error}")))?);
        if view.is_full() {
            view.put(keys::AHEAD, Some(number.to_be_bytes().to_vec().into()));
            write(rows, std::mem::replace(&mut view, View::new(rows.tree())))?;
        }
    }
    // More were applied than this call brings: the mark belongs to a part of them, the rest follows.
    let given = u64::try_from(commands.len()).unwrap_or(u64::MAX);
    let left = applied_before.saturating_sub(given);
    view.put(keys::AHEAD, (left > 0).then(|| left.to_be_bytes().to_vec().into()));
    view.put(keys::MARK, Some(seal(&replies).as_ref().into()));
    write(rows, view)?;
    Ok(replies)
}

/// Refuses to write after a failure, and among rows that are being replaced.
fn usable(rows: &Rows) -> Result<(), StorageError> {
    match rows.failure() {
        Some(failure) => Err(failure),
        None if rows.is_replacing() => Err(rows.explain(Fault::Replacing, "write")),
        None => Ok(()),
    }
}

fn write(rows: &Rows, view: View<'_>) -> Result<(), Fault> {
    let (batch, unfinished) = view.into_batch();
    rows.write(&batch)?;
    unfinished.map_or(Ok(()), |user| delete_rest(rows, &user))
}

/// Carries an unfinished deletion to its end.
pub(super) fn delete_rest(rows: &Rows, user: &BareJid) -> Result<(), Fault> {
    loop {
        let (batch, last) = finish_deletion(rows.tree(), user)?;
        rows.write(&batch)?;
        if last {
            return Ok(());
        }
    }
}
