//! Waits until all nodes of `althing dev` serve, and says meanwhile what is missing.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::future::join_all;

use super::layout::NodeFiles;
use crate::admin::probe;
use crate::cli::console::say;

/// Time between two looks at the starting nodes.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two lines that say what is missing.
const SAY: Duration = Duration::from_secs(1);
/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until every node is ready.
///
/// # Errors
/// What is still missing after `limit`.
pub(super) async fn wait(nodes: &[NodeFiles], limit: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut said, mut said_at) = (String::new(), began);
    loop {
        let missing: Vec<String> = join_all(nodes.iter().map(missing)).await.into_iter().flatten().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join("; ");
        if began.elapsed() > limit {
            bail!("not ready after {} s: {missing}", limit.as_secs());
        }
        if said_at.elapsed() >= SAY && missing != said {
            say(format_args!("waiting: {missing}"))?;
            (said, said_at) = (missing, Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the node lacks, in words; `None` when it is ready.
async fn missing(node: &NodeFiles) -> Option<String> {
    let why = match probe::get(node.config.listen.http, "/readyz?verbose", PATIENCE).await {
        Ok((200, _)) => return None,
        Ok((status, body)) => failed_checks(&body).unwrap_or_else(|| format!("HTTP status {status}")),
        Err(error) => format!("not reachable ({error})"),
    };
    Some(format!("{}: {why}", node.name))
}

/// The failed checks of an answer to `/readyz?verbose`. Where the cluster is what is missing, the rest follows from
/// it and is left out.
fn failed_checks(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let failed: Vec<(&str, &str)> = body
        .get("checks")?
        .as_array()?
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| (check["name"].as_str().unwrap_or(""), check["why"].as_str().unwrap_or("")))
        .collect();
    if let Some((_, why)) = failed.iter().find(|(name, _)| *name == "cluster") {
        return Some((*why).to_owned());
    }
    (!failed.is_empty()).then(|| failed.iter().map(|(_, why)| *why).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_checks_are_said_in_their_words() {
        let body = r#"{"ok":false,"checks":[{"name":"started","ok":false,"why":"not bound"},
            {"name":"storage","ok":true,"why":""},{"name":"listening","ok":false,"why":"no client"}]}"#;
        assert_eq!(failed_checks(body).unwrap(), "not bound, no client");
        let body = r#"{"ok":false,"checks":[{"name":"started","ok":false,"why":"not bound"},
            {"name":"cluster","ok":false,"why":"dev-1 cannot be reached"}]}"#;
        assert_eq!(failed_checks(body).unwrap(), "dev-1 cannot be reached");
        assert_eq!(failed_checks("nonsense"), None);
    }
}
