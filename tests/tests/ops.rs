//! What is shipped for operators fits the server: example configurations load, and alerts and dashboard ask only for
//! metrics that a running node has. `tests/ops/` checks the rest with the tools that read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use althing_tests::metrics_used::{missing, used};
use althing_tests::node::TestNode;
use althing_tests::setup::binary;

/// Metrics that only nodes of a cluster have.
const OF_THE_CLUSTER: &[&str] =
    &["althing_raft_", "althing_cluster_", "althing_link_", "althing_tasks_", "althing_routes"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All TOML files below `folder`, by path.
fn configurations(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Runs `althing` with these arguments and variables; what it wrote, if it failed.
fn althing(arguments: &[&str], variables: &[(&str, PathBuf)]) -> Result<(), String> {
    let mut command = Command::new(binary().unwrap());
    command.args(arguments);
    for (name, value) in variables {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn every_example_configuration_is_accepted() {
    let files: Vec<PathBuf> =
        ["deploy", "k8s"].iter().flat_map(|folder| configurations(&root().join(folder))).collect();
    assert!(files.len() >= 4, "{files:?}");
    // The examples name places where no certificates are on this machine: these are laid over.
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let folder = |name: &str| place(name).display().to_string();
    althing(&["cert", "dev", "--domain", "example.org", "--dir", &folder("tls")], &[]).unwrap();
    althing(&["cert", "cluster", "--name", "althing-0", "--dir", &folder("cluster")], &[]).unwrap();
    let tls = [
        ("ALTHING__TLS__CERTIFICATE", place("tls/server.pem")),
        ("ALTHING__TLS__KEY", place("tls/server.key")),
    ];
    let cluster = [
        ("ALTHING__NODE__NAME", PathBuf::from("althing-0")),
        ("ALTHING__CLUSTER__CA", place("cluster/ca.pem")),
        ("ALTHING__CLUSTER__CERTIFICATE", place("cluster/althing-0.pem")),
        ("ALTHING__CLUSTER__KEY", place("cluster/althing-0.key")),
    ];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut variables = tls.to_vec();
        if text.contains("[cluster]") {
            variables.extend(cluster.clone());
        }
        let name = file.display().to_string();
        let outcome = althing(&["check-config", "--config", &name], &variables);
        assert_eq!(outcome, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_a_node_has() {
    let used = used(&root()).unwrap();
    assert!(used.len() > 40, "{used:?}");
    let node = TestNode::start("").await.unwrap();
    let (_, answer) = node.http("/metrics").await.unwrap();
    let unknown: Vec<String> = missing(&used, &[answer])
        .into_iter()
        .filter(|line| !OF_THE_CLUSTER.iter().any(|start| line.starts_with(start)))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}
