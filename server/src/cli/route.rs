//! `althing route`: where the sessions of an address are, and why.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use althing_proto::time::Timestamp;

use super::NodeDoor;
use super::console::say;
use crate::admin::protocol::{Answer, Request, RouteReport, SessionReport};

/// Arguments of `althing route`.
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// The address: user@domain for all sessions of an account, user@domain/resource for one; a component's domain for
    /// its connections
    jid: String,
    #[command(flatten)]
    door: NodeDoor,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn route(args: &RouteArgs) -> anyhow::Result<ExitCode> {
    actix_rt::System::new().block_on(async {
        let request = Request::Route { jid: args.jid.clone() };
        let Answer::Route(report) = args.door.connect().await?.ask(&request).await? else {
            bail!("the node answers something else than was asked");
        };
        if args.json {
            say(serde_json::to_string(&report)?)?;
        } else {
            say(text(&report).trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The report for people.
fn text(report: &RouteReport) -> String {
    let mut out = String::new();
    if report.sessions.is_empty() {
        let _ = writeln!(out, "{}: nobody", report.jid);
    }
    for session in &report.sessions {
        out.push_str(&one(session));
    }
    if report.left_off > 0 {
        let _ = writeln!(out, "and {} more", report.left_off);
    }
    let _ = writeln!(out, "seen by {}, which has applied the log up to {}", report.seen_by, report.applied);
    out
}

fn one(session: &SessionReport) -> String {
    let name = session.node.as_deref().unwrap_or("a node of unknown name");
    let priority = session.priority.map_or_else(
        || "not available for messages".to_owned(),
        |priority| format!("available, priority {priority}"),
    );
    let stream = match session.resumable_until {
        None => "its stream is open".to_owned(),
        Some(until) => {
            format!("it has no stream; resumable until {}", Timestamp::from_millis(until).to_xep0082())
        }
    };
    format!(
        "{}\n  on {name} ({}), start {}\n  bound by entry {} of the log (bind index {})\n  {priority}; {stream}\n",
        session.jid, session.node_id, session.incarnation, session.log_index, session.bind
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sessions: Vec<SessionReport>) -> RouteReport {
        RouteReport {
            jid: "alice@localhost".into(),
            seen_by: "dev-0".into(),
            applied: 17,
            sessions,
            left_off: 0,
        }
    }

    #[test]
    fn a_session_is_shown_with_place_and_reason() {
        let mut session = SessionReport {
            jid: "alice@localhost/phone".into(),
            node_id: "00000000000000ab".into(),
            node: Some("dev-1".into()),
            incarnation: 2,
            bind: 12_288,
            log_index: 12,
            priority: Some(-1),
            resumable_until: None,
        };
        let expected = "\
alice@localhost/phone
  on dev-1 (00000000000000ab), start 2
  bound by entry 12 of the log (bind index 12288)
  available, priority -1; its stream is open
seen by dev-0, which has applied the log up to 17
";
        assert_eq!(text(&report(vec![session.clone()])), expected);
        session.priority = None;
        session.resumable_until = Some(0);
        session.node = None;
        let shown = text(&report(vec![session]));
        assert!(shown.contains("on a node of unknown name (00000000000000ab)"), "{shown}");
        assert!(shown.contains("not available for messages; it has no stream; resumable until 1970-01-01T"));
    }

    #[test]
    fn nobody_is_said_too() {
        assert!(text(&report(vec![])).starts_with("alice@localhost: nobody\n"));
    }
}
