//! Whether the process of a peer is known to be gone, so that nobody has to wait for its lease to end.
//!
//! A crashed process leaves its kernel behind, which resets what was connected and refuses what knocks. A machine
//! or a network that is gone does neither: that says nothing about the process.

use std::io::ErrorKind;
use std::time::Duration;

use crate::link::discovery::refuses;
use crate::link::{ConnectError, LaneStatus};

/// Between the two knocks: a process that is just restarting listens again, or refuses again.
const BETWEEN: Duration = Duration::from_millis(300);
/// Longest wait for one knock to be refused.
const KNOCK: Duration = Duration::from_millis(500);

/// PURE: whether the links to a peer look as those to a process that has gone: they were connected, none is, and
/// each of them was closed, reset or refused by the other side: first when it ended, and now. One that fell silent
/// says nothing, whoever refuses later at its address: that may be another machine.
#[must_use]
pub fn looks_dead(lanes: &[LaneStatus]) -> bool {
    let ended = |lane: &LaneStatus| {
        lane.version.is_none()
            && lane.error.as_ref().is_some_and(by_the_other_side)
            && lane.ended.as_ref().is_none_or(by_the_other_side)
    };
    !lanes.is_empty() && lanes.iter().any(|lane| lane.connects > 0) && lanes.iter().all(ended)
}

fn by_the_other_side(error: &ConnectError) -> bool {
    match error {
        ConnectError::Closed => true,
        ConnectError::Io { kind, .. } => matches!(
            kind,
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

/// Whether the process at `address` is known to be gone: its links look dead, and its address refuses twice.
pub async fn is_known_dead(lanes: &[LaneStatus], address: &str) -> bool {
    if !looks_dead(lanes) || !refuses(address, KNOCK).await {
        return false;
    }
    tokio::time::sleep(BETWEEN).await;
    refuses(address, KNOCK).await
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::link::frame::Lane;

    fn lane(version: Option<u16>, connects: u64, error: Option<ConnectError>) -> LaneStatus {
        let ended = error.clone().filter(|_| connects > 0 && version.is_none());
        LaneStatus {
            lane: Lane::Tasks,
            version,
            waiting: 0,
            waiting_bytes: 0,
            connects,
            resent: 0,
            error,
            ended,
        }
    }

    fn io(kind: ErrorKind) -> ConnectError {
        ConnectError::Io { kind, why: String::new() }
    }

    #[test]
    fn only_links_that_the_other_side_has_ended_look_dead() {
        let reset = || lane(None, 1, Some(io(ErrorKind::ConnectionReset)));
        assert!(looks_dead(&[reset(), lane(None, 1, Some(ConnectError::Closed))]));
        assert!(looks_dead(&[reset(), lane(None, 0, Some(io(ErrorKind::ConnectionRefused)))]));
        for other in [
            lane(Some(1), 1, None),
            lane(None, 1, None),
            lane(None, 1, Some(ConnectError::Silent)),
            lane(None, 1, Some(ConnectError::Timeout)),
            lane(None, 1, Some(io(ErrorKind::HostUnreachable))),
            lane(None, 1, Some(io(ErrorKind::TimedOut))),
        ] {
            assert!(!looks_dead(&[reset(), other.clone()]), "{other:?}");
        }
        let silent = LaneStatus { ended: Some(ConnectError::Silent), ..reset() };
        assert!(!looks_dead(&[reset(), silent]), "it refuses now, but who does?");
        assert!(!looks_dead(&[]));
        assert!(!looks_dead(&[lane(None, 0, Some(io(ErrorKind::ConnectionRefused)))]), "never seen alive");
    }

    #[tokio::test]
    async fn an_address_that_listens_is_not_dead() {
        let lanes = [lane(None, 1, Some(ConnectError::Closed))];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(!is_known_dead(&lanes, &address).await);
        drop(listener);
        assert!(is_known_dead(&lanes, &address).await);
        assert!(!is_known_dead(&[lane(Some(1), 1, None)], &address).await);
    }
}
