//! Every script of `tests/wire` on one node and on three, where each client of a script is on another node:
//! `cargo test -p althing-tests --test wire -- NAME`. The cases are `one::NAME` and `three::NAME`.
//!
//! `ALTHING_WIRE_ENDPOINT=C2S,C2S_TLS,CA.pem` plays them against a server that already runs, for comparison.

#![allow(clippy::print_stdout, reason = "a test harness speaks to its terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use althing_tests::admin::add_user;
use althing_tests::cluster::TestCluster;
use althing_tests::endpoint::Endpoint;
use althing_tests::node::TestNode;
use althing_tests::script::{parser, runner};
use althing_tests::setup::DOMAIN;

/// Names a server that runs already.
const GIVEN: &str = "ALTHING_WIRE_ENDPOINT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cases = match cases(&arguments) {
        Ok(cases) => cases,
        Err(error) => {
            println!("tests/wire cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} tests", cases.len());
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(play_all(&cases))
}

/// Where a script is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a server by itself.
    One,
    /// On a cluster of three nodes.
    Three,
    /// On a server that runs already.
    Given,
}

struct Case {
    name: String,
    script: PathBuf,
    place: Place,
}

/// The cases whose names contain one of the words of the command line, or all; those of one place together.
fn cases(arguments: &[String]) -> std::io::Result<Vec<Case>> {
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire");
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "wire") {
            scripts.push(path);
        }
    }
    scripts.sort();
    let places: &[(Place, &str)] = match std::env::var_os(GIVEN) {
        Some(_) => &[(Place::Given, "given")],
        None => &[(Place::One, "one"), (Place::Three, "three")],
    };
    let all = places.iter().flat_map(|(place, word)| {
        scripts.iter().map(move |script| {
            let stem = script.file_stem().unwrap_or_default().to_string_lossy();
            Case { name: format!("wire::{word}::{stem}"), script: script.clone(), place: *place }
        })
    });
    Ok(all.filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(*word))).collect())
}

/// What the scripts need beyond a test node's own configuration.
const OVERLAY: &str = "
[xmpp]
domains = [\"localhost\", \"quick.localhost\"]
admins = [\"admin@localhost\"]

[messages]
hosts = [{ domain = \"quick.localhost\", durability = \"memory\" }]

[contact]
abuse = [\"mailto:abuse@example.org\", \"xmpp:admin@localhost\"]
support = [\"https://example.org/help\"]

[services]
external = [
  { type = \"stun\", host = \"stun.example.org\", port = 3478, transport = \"udp\" },
  { type = \"turn\", host = \"turn.example.org\", port = 3478, transport = \"udp\", secret = \"between the two\" },
  { type = \"ftp\", host = \"ftp.example.org\", name = \"Files\", username = \"guest\", password = \"come in\" },
]
";

/// What plays the scripts of one place.
enum Stage {
    Node(TestNode),
    Cluster(TestCluster),
    Given(Endpoint),
}

impl Stage {
    async fn open(place: Place) -> anyhow::Result<Stage> {
        let stage = match place {
            Place::One => Stage::Node(TestNode::start(OVERLAY).await?),
            Place::Three => Stage::Cluster(TestCluster::start(3, OVERLAY).await?),
            Place::Given => Stage::Given(Endpoint::parse(&std::env::var(GIVEN)?)?),
        };
        // No administrator registers in band.
        if let Some(node) = stage.first() {
            let admin = runner::administrator();
            add_user(&node.setup().data(), &admin.bare(DOMAIN), &admin.password).await?;
        }
        Ok(stage)
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Stage::Node(node) => vec![node.endpoint()],
            Stage::Cluster(cluster) => cluster.endpoints(),
            Stage::Given(endpoint) => vec![endpoint.clone()],
        }
    }

    fn first(&self) -> Option<&TestNode> {
        match self {
            Stage::Node(node) => Some(node),
            Stage::Cluster(cluster) => Some(cluster.node(0)),
            Stage::Given(_) => None,
        }
    }

    fn show_logs(&self) {
        let show = |node: &TestNode| {
            println!("\nthe end of the log of {}:\n{}", node.setup().name, node.log_end());
        };
        match self {
            Stage::Node(node) => show(node),
            Stage::Cluster(cluster) => (0..3).for_each(|index| show(cluster.node(index))),
            Stage::Given(_) => {}
        }
    }
}

async fn play_all(cases: &[Case]) -> ExitCode {
    let (mut passed, mut failures) = (0, Vec::new());
    for place in [Place::One, Place::Three, Place::Given] {
        let here: Vec<&Case> = cases.iter().filter(|case| case.place == place).collect();
        if here.is_empty() {
            continue;
        }
        let stage = match Stage::open(place).await {
            Ok(stage) => stage,
            Err(error) => {
                failures
                    .extend(here.iter().map(|case| format!("---- {} ----\nno node: {error:#}", case.name)));
                continue;
            }
        };
        let before = failures.len();
        let endpoints = stage.endpoints();
        for case in here {
            match play(case, &endpoints).await {
                Ok(()) => {
                    println!("test {} ... ok", case.name);
                    passed += 1;
                }
                Err(error) => {
                    println!("test {} ... FAILED", case.name);
                    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                    failures.push(format!("---- {} ----\n{}", case.name, causes.join("\n")));
                }
            }
        }
        if failures.len() > before {
            stage.show_logs();
        }
    }
    if failures.is_empty() {
        println!("\ntest result: ok. {passed} passed; 0 failed\n");
        return ExitCode::SUCCESS;
    }
    println!("\n{}", failures.join("\n\n"));
    println!("\ntest result: FAILED. {passed} passed; {} failed\n", failures.len());
    ExitCode::FAILURE
}

async fn play(case: &Case, endpoints: &[Endpoint]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&case.script)?;
    let script = parser::parse(&case.name, &text)?;
    runner::run(&script, endpoints).await
}
