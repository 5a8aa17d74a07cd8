//! What a node says through its admin socket: one JSON object a line, asked and answered.
//!
//! The shapes are written down here once more, as far as tests look at them: a change that would break another
//! program that asks breaks a test.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::deadline::within;

/// One node's view of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClusterStatus {
    /// The node that answers.
    pub node: NodeStatus,
    /// The Raft groups.
    pub groups: Vec<GroupStatus>,
    /// All nodes of the cluster that this one knows, itself too.
    pub members: Vec<MemberStatus>,
    /// Sessions in its route table.
    pub sessions: usize,
    /// What it waits for before it serves.
    pub waiting_for: Option<String>,
}

/// The node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// How often it has been started.
    pub incarnation: u64,
    /// `serving`, `suspended` or `lost`.
    pub standing: String,
}

/// One Raft group as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupStatus {
    /// `routes` or `store`.
    pub name: String,
    /// Name of the leader.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// The last log entry that the node has applied.
    pub applied: Option<u64>,
    /// Names of the members with a vote.
    pub voters: Vec<String>,
}

/// A node as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// `up`, `down` or `unknown`, by the route table.
    pub state: String,
    /// Whether there is a link to it.
    pub connected: bool,
}

impl ClusterStatus {
    /// Whether it serves and knows the leaders of all groups, of which there are some.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.serves() && !self.groups.is_empty() && self.groups.iter().all(|group| group.leader.is_some())
    }

    /// Whether its lease holds.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.node.standing == "serving"
    }

    /// The group called `name`.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupStatus> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// What its route table says of the node called `name`: `up`, `down`, or `unknown`.
    #[must_use]
    pub fn state_of(&self, name: &str) -> &str {
        let found = self.members.iter().find(|member| member.name == name);
        found.map_or("unknown", |member| member.state.as_str())
    }

    /// How many nodes are up by its route table.
    #[must_use]
    pub fn up(&self) -> usize {
        self.members.iter().filter(|member| member.state == "up").count()
    }
}

/// Where the sessions of an address are, by one node's route table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RouteReport {
    /// The last log entry that the node has applied.
    pub applied: u64,
    /// The sessions.
    pub sessions: Vec<SessionReport>,
}

/// Where one session is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct SessionReport {
    /// The full JID.
    pub jid: String,
    /// Id of the node that holds it.
    pub node_id: String,
    /// That node's name, where it is known.
    pub node: Option<String>,
    /// Which start of that node.
    pub incarnation: u64,
    /// The bind index.
    pub bind: u64,
}

/// Asks the node whose `node.data_dir` is `data`, and returns its answer.
///
/// # Errors
/// No node, no answer within one step, or what it says that it could not do.
pub async fn ask(data: &Path, request: &Value) -> Result<Value> {
    within("an answer of the admin socket", async {
        let stream = UnixStream::connect(data.join("admin.sock")).await.context("the admin socket")?;
        let mut stream = BufReader::new(stream);
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let answer: Value = serde_json::from_str(&line).context("no JSON")?;
        ensure!(answer["answer"] != "failed.1", "{request} failed: {}", answer["reason"]);
        Ok(answer)
    })
    .await
}

/// The node's view of its cluster.
///
/// # Errors
/// As [`ask`].
pub async fn status(data: &Path) -> Result<ClusterStatus> {
    let answer = ask(data, &json!({"request": "cluster_status.1"})).await?;
    Ok(serde_json::from_value(answer)?)
}

/// Where the sessions of `jid` are, full or bare.
///
/// # Errors
/// As [`ask`].
pub async fn route(data: &Path, jid: &str) -> Result<RouteReport> {
    let answer = ask(data, &json!({"request": "route.1", "jid": jid})).await?;
    Ok(serde_json::from_value(answer)?)
}

/// Makes an account.
///
/// # Errors
/// As [`ask`].
pub async fn add_user(data: &Path, jid: &str, password: &str) -> Result<()> {
    ask(data, &json!({"request": "user_add.1", "jid": jid, "password": password})).await.map(drop)
}

/// Disables an account, or enables it again. Whether there is one.
///
/// # Errors
/// As [`ask`].
pub async fn set_disabled(data: &Path, jid: &str, disabled: bool) -> Result<bool> {
    let request = json!({"request": "user_set_disabled.1", "jid": jid, "disabled": disabled});
    Ok(ask(data, &request).await?["changed"] == true)
}
