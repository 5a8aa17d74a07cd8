//! The Raft log and the state machine of the routes: openraft's own suite, closing and reopening, and a
//! process that is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are not seen as tests")]

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::raft::{LogOptions, LogStore, RouteGroup, RouteStateMachine};
use althing_cluster::routes::command::{Bind, NodeUp, RouteBatch};
use althing_proto::jid::FullJid;
use futures_util::stream;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;

type Log = LogStore<RouteGroup>;

/// Set for the process that is to be killed: where its log is.
const VICTIM: &str = "ALTHING_TEST_LOG_OF_VICTIM";

struct Stores;

impl StoreBuilder<RouteGroup, Log, RouteStateMachine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, Log, RouteStateMachine), StorageError<RouteGroup>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = (open(dir.path()), RouteStateMachine::open(dir.path()).unwrap());
        Ok((dir, log, machine))
    }
}

fn open(dir: &Path) -> Log {
    // A tail so small that nearly all is read from disk.
    LogStore::open(dir, LogOptions { cache_bytes: 1 << 20, tail_bytes: 100 }).unwrap()
}

fn id(index: u64) -> LogIdOf<RouteGroup> {
    LogIdOf::<RouteGroup>::new(LeaderId { term: 1, node_id: NodeId::new(7) }, index)
}

fn vote(term: u64) -> VoteOf<RouteGroup> {
    VoteOf::<RouteGroup>::new(term, NodeId::new(7))
}

/// The entry at `index`: a session named by it.
fn entry(index: u64) -> EntryOf<RouteGroup> {
    let (node, incarnation) = (NodeId::new(7), Incarnation(1));
    let jid = FullJid::new(&format!("u@d/{index}")).unwrap();
    let batch = match index {
        0 => vec![NodeUp { node, incarnation }.into()],
        _ => vec![Bind { jid, node, incarnation }.into()],
    };
    EntryOf::<RouteGroup> {
        log_id: id(index),
        payload: EntryPayload::Normal(RouteBatch::new(batch).unwrap()),
    }
}

async fn indices(log: &mut Log) -> Vec<u64> {
    let entries = log.get_log_reader().await.try_get_log_entries(..).await.unwrap();
    assert!(entries.iter().all(|found| *found == entry(found.log_id.index)));
    entries.iter().map(|found| found.log_id.index).collect()
}

#[tokio::test]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(Stores).await.unwrap();
}

#[tokio::test]
async fn what_was_answered_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.save_vote(&vote(3)).await.unwrap();
    log.blocking_append((0..3_000).map(entry)).await.unwrap();
    log.save_committed(Some(id(2_000))).await.unwrap();
    log.truncate_after(Some(id(2_499))).await.unwrap();
    log.purge(id(1_499)).await.unwrap();
    assert_eq!(indices(&mut log).await, (1_500..2_500).collect::<Vec<_>>());
    drop(log);

    let mut log = open(dir.path());
    assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(log.read_committed().await.unwrap(), Some(id(2_000)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1_499)), Some(id(2_499))));
    assert_eq!(indices(&mut log).await, (1_500..2_500).collect::<Vec<_>>());
    // The log goes on where it ended, and a purge past its end leaves nothing.
    log.blocking_append([entry(2_500)]).await.unwrap();
    log.purge(id(9_000)).await.unwrap();
    drop(log);
    let mut log = open(dir.path());
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(9_000)));
    assert!(indices(&mut log).await.is_empty());
}

#[tokio::test]
async fn a_long_answer_to_a_follower_is_cut_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let one = entry(1).payload;
    let EntryPayload::Normal(batch) = one else { panic!("no batch") };
    let many = RouteBatch::new(vec![batch.into_commands().remove(0); 4_000]).unwrap();
    let large = (0..100)
        .map(|at| EntryOf::<RouteGroup> { log_id: id(at), payload: EntryPayload::Normal(many.clone()) });
    log.blocking_append(large).await.unwrap();
    let mut reader = log.get_log_reader().await;
    let mut next = 0;
    while next < 100 {
        let some = reader.limited_get_log_entries(next, 100).await.unwrap();
        assert!(!some.is_empty() && some.len() < 60);
        for found in some {
            assert_eq!(found.log_id.index, next);
            next += 1;
        }
    }
}

#[test]
fn a_log_that_lost_its_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = LogStore::<RouteGroup>::open(dir.path(), LogOptions::default()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

/// Not a test of its own: in the process that [`a_killed_process_has_lost_nothing_answered`] starts, it
/// appends until it is killed and says what has been answered.
#[tokio::test]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let mut log = open(Path::new(&dir));
    let mut out = io::stdout();
    let first = log.get_log_state().await.unwrap().last_log_id.map_or(0, |last| last.index + 1);
    for index in first.. {
        log.save_vote(&vote(index)).await.unwrap();
        log.blocking_append([entry(index)]).await.unwrap();
        if index % 10 == 9 {
            log.purge(id(index - 5)).await.unwrap();
        }
        writeln!(out, "\nanswered {index}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_has_lost_nothing_answered() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("answered ").and_then(|index| index.parse::<u64>().ok()));
        let seen = answered.find(|index| *index >= round * 37).expect("the victim died early");
        child.kill().unwrap();
        child.wait().unwrap();
        let answered = answered.last().unwrap_or(seen);

        let mut log = open(dir.path());
        let state = log.get_log_state().await.unwrap();
        let (last, purged) = (state.last_log_id.unwrap().index, state.last_purged_log_id.unwrap().index);
        assert!(last >= answered, "{answered} was answered, {last} is there");
        assert!(purged + 15 >= answered, "purged through {purged} only");
        assert_eq!(indices(&mut log).await, (purged + 1..=last).collect::<Vec<_>>());
        let saved = log.get_log_reader().await.read_vote().await.unwrap().unwrap();
        assert!(saved >= vote(answered));
    }
}

#[tokio::test]
async fn a_restarted_machine_begins_with_its_snapshot_and_a_newcomer_with_another_s() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = RouteStateMachine::open(dir.path()).unwrap();
    machine.apply(stream::iter((0..50).map(|at| Ok((entry(at), None))))).await.unwrap();
    let routes = machine.routes();
    assert!(routes.wait_for(49).await);
    let mut builder = machine.get_snapshot_builder().await;
    // What is applied while the snapshot is being built is not in it.
    machine.apply(stream::iter([Ok((entry(50), None))])).await.unwrap();
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!((built.snapshot.sessions(), routes.sessions()), (49, 50));
    assert_eq!(built.meta.last_log_id, Some(id(49)));
    drop(machine);

    let mut machine = RouteStateMachine::open(dir.path()).unwrap();
    let found = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(found.meta, built.meta);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut newcomer = RouteStateMachine::open(elsewhere.path()).unwrap();
    newcomer.install_snapshot(&found.meta, found.snapshot).await.unwrap();
    let routes = newcomer.routes();
    assert_eq!((routes.sessions(), routes.index()), (49, 49));
    assert_eq!(routes.locate(&FullJid::new("u@d/7").unwrap()).map(|route| route.node), Some(NodeId::new(7)));
    assert_eq!(newcomer.applied_state().await.unwrap().0, Some(id(49)));
}
