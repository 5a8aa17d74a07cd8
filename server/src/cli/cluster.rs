//! `althing cluster status`: what a running node sees of its cluster.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::NodeDoor;
use super::console::say;
use super::table::table;
use crate::admin::protocol::{Answer, Request};
use crate::admin::status::{ClusterStatus, MemberState, Standing};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the node's standing, the leaders and the members; exit code 1 unless it serves and knows a leader
    Status(StatusArgs),
}

/// Arguments of `althing cluster status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    door: NodeDoor,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

pub(super) fn cluster(command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    let ClusterCommand::Status(args) = command;
    actix_rt::System::new().block_on(async {
        let Answer::ClusterStatus(status) = args.door.connect().await?.ask(&Request::ClusterStatus).await?
        else {
            bail!("the node answers something else than was asked");
        };
        if args.json {
            say(serde_json::to_string(&status)?)?;
        } else {
            say(text(&status).trim_end())?;
        }
        Ok(if status.settled() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// The status for people.
fn text(status: &ClusterStatus) -> String {
    let node = &status.node;
    let mut out = format!("node      {} ({}), start {}\n", node.name, node.id, node.incarnation);
    let standing = match (node.standing, node.lease_remaining_ms) {
        (Standing::Serving, Some(left)) => format!("serving, for {left} ms without hearing from the leader"),
        (Standing::Serving, None) => "serving".to_owned(),
        (Standing::Suspended, _) => {
            "suspended: no majority is heard; sessions are kept for a while".to_owned()
        }
        (Standing::Lost, _) => "lost: no majority was heard for too long; sessions are closed".to_owned(),
    };
    let _ = writeln!(out, "standing  {standing}");
    if let Some(what) = &status.waiting_for {
        let _ = writeln!(out, "waiting   for {what}");
    }
    let _ = writeln!(out, "sessions  {}", status.sessions);
    if status.groups.is_empty() {
        out.push_str("cluster   none: the node is a server by itself\n");
    } else {
        out.push('\n');
        out.push_str(&groups(status));
    }
    out.push('\n');
    out.push_str(&members(status));
    out
}

fn groups(status: &ClusterStatus) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(" ") };
    let rows = status.groups.iter().map(|group| {
        vec![
            group.name.clone(),
            group.leader.clone().unwrap_or_else(|| "none".to_owned()),
            group.term.to_string(),
            number(group.last_log),
            number(group.applied),
            names(&group.voters),
            names(&group.learners),
        ]
    });
    table(&["GROUP", "LEADER", "TERM", "LAST LOG", "APPLIED", "VOTERS", "LEARNERS"], rows)
}

fn members(status: &ClusterStatus) -> String {
    let rows = status.members.iter().map(|member| {
        let state = match member.state {
            MemberState::Up => "up",
            MemberState::Down => "down",
            MemberState::Unknown => "unknown",
        };
        vec![
            member.name.clone(),
            member.id.clone(),
            state.to_owned(),
            if member.connected { "yes" } else { "no" }.to_owned(),
            member.sessions.to_string(),
            if member.address.is_empty() { "-".to_owned() } else { member.address.clone() },
        ]
    });
    table(&["MEMBER", "ID", "STATE", "LINK", "SESSIONS", "ADDRESS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{GroupStatus, MemberStatus, NodeStatus};

    fn status() -> ClusterStatus {
        let member = |index: u64, state, connected| MemberStatus {
            id: format!("{index:016x}"),
            name: format!("dev-{index}"),
            address: format!("127.0.0.{}:5275", index + 1),
            state,
            connected,
            sessions: 4,
        };
        ClusterStatus {
            node: NodeStatus {
                id: format!("{:016x}", 0),
                name: "dev-0".into(),
                incarnation: 3,
                standing: Standing::Serving,
                lease_remaining_ms: Some(2_310),
            },
            groups: vec![GroupStatus {
                name: "routes".into(),
                leader: Some("dev-0".into()),
                term: 4,
                last_log: Some(1_203),
                applied: Some(1_202),
                voters: vec!["dev-0".into(), "dev-1".into()],
                learners: vec![],
            }],
            members: vec![member(0, MemberState::Up, true), member(1, MemberState::Down, false)],
            sessions: 8,
            waiting_for: None,
        }
    }

    #[test]
    fn people_read_tables() {
        let expected = "\
node      dev-0 (0000000000000000), start 3
standing  serving, for 2310 ms without hearing from the leader
sessions  8

GROUP   LEADER  TERM  LAST LOG  APPLIED  VOTERS       LEARNERS
routes  dev-0   4     1203      1202     dev-0 dev-1  -

MEMBER  ID                STATE  LINK  SESSIONS  ADDRESS
dev-0   0000000000000000  up     yes   4         127.0.0.1:5275
dev-1   0000000000000001  down   no    4         127.0.0.2:5275
";
        assert_eq!(text(&status()), expected);
    }

    #[test]
    fn a_waiting_node_says_for_what() {
        let mut status = status();
        status.node.standing = Standing::Lost;
        status.groups[0].leader = None;
        status.waiting_for = Some("dev-1, which cannot be reached".into());
        let text = text(&status);
        assert!(text.contains("standing  lost: "), "{text}");
        assert!(text.contains("waiting   for dev-1, which cannot be reached\n"), "{text}");
        assert!(text.contains("routes  none    4"), "{text}");
    }

    #[test]
    fn a_single_node_says_so() {
        let mut status = status();
        status.groups.clear();
        assert!(text(&status).contains("cluster   none: the node is a server by itself\n"));
    }
}
