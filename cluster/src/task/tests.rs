//! The bytes of tasks and replies.

use std::collections::HashSet;

use althing_proto::time::Timestamp;

use super::*;

fn tasks() -> Vec<(&'static str, ClusterTask)> {
    let jid = || FullJid::new("j@d/r").unwrap();
    let xml = || Bytes::from_static(b"<a/>");
    let (owner, by) = (BindIndex(7), BindIndex(300));
    vec![
        ("0001056a40642f7207043c612f3e", DeliverStanza { to: jid(), owner, xml: xml() }.into()),
        (
            "000201056a40642f72fb2c01043c612f3e",
            FanOutPresence { recipients: vec![(jid(), by)], xml: xml() }.into(),
        ),
        ("0003043c612f3e", BroadcastLocal { xml: xml() }.into()),
        ("0004056a40642f7207fb2c01", ReplaceSession { jid: jid(), owner, by }.into()),
        ("0005056a40642f72", DescribeSession { jid: jid() }.into()),
        ("0006036a4064043c612f3e", PushRosterItem { account: jid().to_bare(), item: xml() }.into()),
        (
            "0007056a40642f7207043c612f3efb2c01",
            TakeStream { jid: jid(), owner, token: xml(), handled: 300 }.into(),
        ),
        ("0009", NodeStats {}.into()),
        ("000b043c612f3e", ReadStore { query: xml() }.into()),
        ("000c043c612f3e", WriteStore { command: xml() }.into()),
        (
            "000d036a406403624063",
            ProbeAccount { account: jid().to_bare(), from: Jid::new("b@c").unwrap() }.into(),
        ),
        (
            "000e036a406401043c612f3e",
            DeliverToAccount { account: jid().to_bare(), audience: TaskAudience::Interested, xml: xml() }
                .into(),
        ),
        (
            "000f056a40642f720702fb2c0107",
            ProbeSessions { from: jid(), asker: owner, sessions: vec![by, owner] }.into(),
        ),
        ("0010056a40642f720701043c612f3e", ShowPresence { to: jid(), owner, presences: vec![xml()] }.into()),
        (
            "0014036a40640701026162",
            ShowAvatar { account: jid().to_bare(), revision: 7, hash: Some("ab".to_owned()) }.into(),
        ),
        ("0015036a4064", EndAccount { account: jid().to_bare() }.into()),
        (
            "0018056a40642f720700",
            EndSession { jid: jid(), owner, ending: SessionEnding::Administrator }.into(),
        ),
        ("0018056a40642f720701", EndSession { jid: jid(), owner, ending: SessionEnding::Disabled }.into()),
        ("0019", NodeFigures {}.into()),
        ("001e036a4064043c612f3e", PushPrivacyChange { account: jid().to_bare(), change: xml() }.into()),
        ("0028036a4064", DrainInbox { account: jid().to_bare() }.into()),
        ("0036036a4064", ReadPreferences { account: jid().to_bare() }.into()),
        ("001f036240630107", CountShown { to: Jid::new("b@c").unwrap(), sessions: vec![owner] }.into()),
        ("0008043c612f3e", AnswerIq { xml: xml() }.into()),
        ("00300107", CountFetching { sessions: vec![owner] }.into()),
        ("003e0107", FindUsed { sessions: vec![owner] }.into()),
        (
            "0023056a40642f7207043c612f3efb2c0102",
            DeliverCopy { to: jid(), owner, xml: xml(), number: 300, here: 2 }.into(),
        ),
        ("0029056a40642f720702043c612f3e", GiveStream { jid: jid(), owner, sent: 2, session: xml() }.into()),
    ]
}

fn replies() -> Vec<(&'static str, TaskReply)> {
    let info = SessionInfo {
        owner: BindIndex(7),
        since: Timestamp::from_millis(5),
        priority: Some(-1),
        address: Some("a".to_owned()),
        waiting: 2,
    };
    let numbers = NodeNumbers { started: Timestamp::from_millis(5), sessions: 6, applied: 7 };
    vec![
        ("000100", TaskReply::DeliverStanza(SessionFound::Done)),
        ("00010109", TaskReply::DeliverStanza(SessionFound::NoSession { applied: 9 })),
        ("000102", TaskReply::DeliverStanza(SessionFound::Slowly)),
        ("000103", TaskReply::DeliverStanza(SessionFound::Congested)),
        ("000203", TaskReply::FanOutPresence(3)),
        ("000303", TaskReply::BroadcastLocal(3)),
        ("000400", TaskReply::ReplaceSession(SessionFound::Done)),
        ("000500", TaskReply::DescribeSession(None)),
        ("000501070501ff01016102", TaskReply::DescribeSession(Some(info))),
        ("000603", TaskReply::PushRosterItem(3)),
        ("0007000178", TaskReply::TakeStream(StreamTaken::Taken(Bytes::from_static(b"x")))),
        ("000701", TaskReply::TakeStream(StreamTaken::Unknown)),
        ("000702", TaskReply::TakeStream(StreamTaken::Unavailable)),
        ("0007030504", TaskReply::TakeStream(StreamTaken::TooHigh { handled: 5, sent: 4 })),
        ("0009050607", TaskReply::NodeStats(numbers)),
        ("000b0178", TaskReply::ReadStore(Bytes::from_static(b"x"))),
        ("000c0178", TaskReply::WriteStore(Bytes::from_static(b"x"))),
        ("000d03", TaskReply::ProbeAccount(3)),
        ("000e03", TaskReply::DeliverToAccount(3)),
        ("000f03", TaskReply::ProbeSessions(3)),
        ("001003", TaskReply::ShowPresence(3)),
        ("001403", TaskReply::ShowAvatar(3)),
        ("001503", TaskReply::EndAccount(3)),
        ("001800", TaskReply::EndSession(SessionFound::Done)),
        (
            "00190101610162fb2c01",
            TaskReply::NodeFigures(vec![NodeFigure { name: "a".into(), units: "b".into(), value: 300 }]),
        ),
        ("001e03", TaskReply::PushPrivacyChange(3)),
        ("002803", TaskReply::DrainInbox(3)),
        ("003603", TaskReply::ReadPreferences(3)),
        ("001f03", TaskReply::CountShown(3)),
        ("003003", TaskReply::CountFetching(3)),
        ("003e0107", TaskReply::FindUsed(vec![BindIndex(7)])),
        ("002300", TaskReply::DeliverCopy(SessionFound::Done)),
        ("002901", TaskReply::GiveStream(true)),
        ("0008", TaskReply::AnswerIq(())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nodes of two releases must read each other's tasks.
#[test]
fn golden_bytes() {
    for (golden, task) in tasks() {
        let bytes = task.encode().unwrap();
        assert_eq!(hex(&bytes), golden, "{}", task.kind().label());
        assert_eq!(ClusterTask::decode(&bytes), Ok(task));
    }
    for (golden, reply) in replies() {
        let bytes = reply.encode().unwrap();
        assert_eq!(hex(&bytes), golden, "{}", reply.kind().label());
        assert_eq!(TaskReply::decode(&bytes), Ok(reply));
    }
}

#[test]
fn every_kind_has_golden_bytes_and_a_number_of_its_own() {
    let all: HashSet<TaskKind> = TaskKind::ALL.iter().copied().collect();
    assert_eq!(tasks().iter().map(|(_, task)| task.kind()).collect::<HashSet<_>>(), all);
    assert_eq!(replies().iter().map(|(_, reply)| reply.kind()).collect::<HashSet<_>>(), all);
    let numbers: HashSet<u16> = all.iter().map(|kind| kind.tag()).collect();
    assert_eq!(numbers.len(), TaskKind::ALL.len());
}

#[test]
fn unknown_and_damaged_tasks_are_refused() {
    assert!(ClusterTask::decode(b"\0").is_err());
    assert_eq!(ClusterTask::decode(&[0xff, 0xff, 0]), Err(WireError::UnknownKind(0xffff)));
    for (_, task) in tasks() {
        let bytes = task.encode().unwrap();
        assert!(ClusterTask::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(ClusterTask::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
