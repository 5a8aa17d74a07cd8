//! PURE: what stands round a task and round a reply in the body of their frames.

use bytes::{BufMut, Bytes, BytesMut};

use crate::executor::TaskRefusal;
use crate::link::error::LinkError;
use crate::node_id::Incarnation;
use crate::task::ClusterTask;
use crate::wire::{self, WireError};

/// First byte of a reply that holds what was asked for.
const DONE: u8 = 0;
/// First byte of a reply that holds a [`TaskRefusal`].
const REFUSED: u8 = 1;

/// Under which incarnation the sender sent it, the index that the sender had applied, then the task.
pub(crate) fn task_body(incarnation: Incarnation, applied: u64, task: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(16 + task.len());
    body.put_u64(incarnation.0);
    body.put_u64(applied);
    body.put_slice(task);
    body.freeze()
}

/// What [`task_body`] made. A task that cannot be read still has its place in the order, and an answer.
pub(crate) fn read_task(body: &[u8]) -> (Incarnation, u64, Result<ClusterTask, TaskRefusal>) {
    let head = body.split_first_chunk::<8>();
    let head = head.and_then(|(incarnation, rest)| Some((incarnation, rest.split_first_chunk::<8>()?)));
    let Some((incarnation, (applied, task))) = head else {
        return (Incarnation(0), 0, Err(TaskRefusal::Malformed("too short".to_owned())));
    };
    let task = ClusterTask::decode(task).map_err(|error| match error {
        WireError::UnknownKind(kind) => TaskRefusal::Unknown(kind),
        other => TaskRefusal::Malformed(other.to_string()),
    });
    (Incarnation(u64::from_be_bytes(*incarnation)), u64::from_be_bytes(*applied), task)
}

/// The body of a reply; a reply above `limit` bytes becomes a refusal, which always fits.
pub(crate) fn reply_body(result: Result<Bytes, TaskRefusal>, limit: usize) -> Bytes {
    let (first, rest) = match result {
        Ok(reply) if reply.len() < limit => (DONE, reply),
        Ok(reply) => (REFUSED, refusal(&TaskRefusal::Failed(format!("a reply of {} bytes", reply.len())))),
        Err(error) => (REFUSED, refusal(&error)),
    };
    let mut body = BytesMut::with_capacity(1 + rest.len());
    body.put_u8(first);
    body.put_slice(&rest);
    body.freeze()
}

fn refusal(refusal: &TaskRefusal) -> Bytes {
    // Longer texts help nobody, and must not make the refusal itself too long.
    let short = match refusal {
        TaskRefusal::Failed(why) => TaskRefusal::Failed(why.chars().take(200).collect()),
        TaskRefusal::Malformed(why) => TaskRefusal::Malformed(why.chars().take(200).collect()),
        other => other.clone(),
    };
    wire::encode(&short).map(Bytes::from).unwrap_or_default()
}

/// What [`reply_body`] made.
pub(crate) fn read_reply(mut body: Bytes) -> Result<Bytes, LinkError> {
    match body.first().copied() {
        Some(DONE) => Ok(body.split_off(1)),
        Some(REFUSED) => Err(LinkError::Refused(wire::decode(&body[1..])?)),
        _ => Err(LinkError::Wire(WireError::Malformed("a reply without a beginning".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::NodeStats;

    #[test]
    fn tasks_and_replies_come_back() {
        let task = ClusterTask::from(NodeStats {});
        let body = task_body(Incarnation(3), 7, &task.encode().unwrap());
        assert_eq!(read_task(&body), (Incarnation(3), 7, Ok(task)));
        let reply = Bytes::from_static(b"abc");
        assert_eq!(read_reply(reply_body(Ok(reply.clone()), 100)), Ok(reply));
        let no = TaskRefusal::Suspended;
        assert_eq!(read_reply(reply_body(Err(no.clone()), 100)), Err(LinkError::Refused(no)));
    }

    #[test]
    fn what_cannot_be_read_is_an_answer_too() {
        let first = Incarnation(1);
        assert_eq!(read_task(&task_body(first, 7, &[0x12, 0x34])).2, Err(TaskRefusal::Unknown(0x1234)));
        assert!(matches!(read_task(b"short").2, Err(TaskRefusal::Malformed(_))));
        assert!(matches!(read_task(&task_body(first, 7, b"\0\x01")).2, Err(TaskRefusal::Malformed(_))));
        assert!(read_reply(Bytes::new()).is_err());
        assert!(read_reply(Bytes::from_static(&[9])).is_err());
        assert!(read_reply(Bytes::from_static(&[REFUSED, 99])).is_err());
    }

    #[test]
    fn a_reply_too_long_becomes_a_refusal_that_fits() {
        let long = Bytes::from(vec![0; 1000]);
        let body = reply_body(Ok(long), 1000);
        assert!(body.len() < 1000);
        assert!(matches!(read_reply(body), Err(LinkError::Refused(TaskRefusal::Failed(_)))));
        assert!(reply_body(Err(TaskRefusal::Failed("x".repeat(5000))), 1000).len() < 1000);
    }
}
