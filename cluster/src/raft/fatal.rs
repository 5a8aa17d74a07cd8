//! When a group has stopped by itself: its disk failed, or it panicked. It never comes back in this process.

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::storage::RaftStateMachine;

use super::types::Group;

/// Returns why the group has stopped, once it has; never after an orderly end.
pub(crate) async fn stopped<C: Group, M: RaftStateMachine<C>>(raft: Raft<C, M>) -> String {
    let mut metrics = raft.metrics();
    let fatal = loop {
        if let Err(fatal) = &metrics.borrow_watched().running_state {
            break fatal.clone();
        }
        // It says why before it ends, unless it has panicked.
        if metrics.changed().await.is_err() && metrics.borrow_watched().running_state.is_ok() {
            break Fatal::Panicked;
        }
    };
    match fatal {
        Fatal::Stopped => std::future::pending().await,
        fatal => format!("the {} group has stopped: {fatal}", C::NAME),
    }
}
