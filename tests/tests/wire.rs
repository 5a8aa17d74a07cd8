//! Every script of `tests/wire` against a node, one case each: `cargo test -p althing-tests --test wire -- NAME`.
//!
//! `ALTHING_WIRE_ENDPOINT=C2S,C2S_TLS,CA.pem` plays them against a server that already runs, for comparison.

#![allow(clippy::print_stdout, reason = "a test harness speaks to its terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use althing_tests::endpoint::Endpoint;
use althing_tests::node::TestNode;
use althing_tests::script::{parser, runner};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scripts = match scripts(&arguments) {
        Ok(scripts) => scripts,
        Err(error) => {
            println!("tests/wire cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} tests", scripts.len());
    if arguments.iter().any(|word| word == "--list") {
        scripts.iter().for_each(|path| println!("{}: test", name(path)));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(play_all(&scripts))
}

/// The scripts whose names contain one of the words of the command line, or all.
fn scripts(arguments: &[String]) -> std::io::Result<Vec<PathBuf>> {
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let asked_for = words.is_empty() || words.iter().any(|word| name(&path).contains(word.as_str()));
        if path.extension().is_some_and(|ending| ending == "wire") && asked_for {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> String {
    format!("wire::{}", path.file_stem().unwrap_or_default().to_string_lossy())
}

async fn play_all(scripts: &[PathBuf]) -> ExitCode {
    let mut node = None;
    let endpoint = match std::env::var("ALTHING_WIRE_ENDPOINT") {
        Ok(text) => Endpoint::parse(&text),
        Err(_) => TestNode::start("").await.map(|started| node.insert(started).endpoint()),
    };
    let endpoints = match endpoint {
        Ok(endpoint) => [endpoint],
        Err(error) => {
            println!("no node: {error:#}\n\ntest result: FAILED. 0 passed; {} failed", scripts.len());
            return ExitCode::FAILURE;
        }
    };
    let mut failures = Vec::new();
    for path in scripts {
        match play(path, &endpoints).await {
            Ok(()) => println!("test {} ... ok", name(path)),
            Err(error) => {
                println!("test {} ... FAILED", name(path));
                let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                failures.push(format!("---- {} ----\n{}", name(path), causes.join("\n")));
            }
        }
    }
    let passed = scripts.len() - failures.len();
    if failures.is_empty() {
        println!("\ntest result: ok. {passed} passed; 0 failed\n");
        return ExitCode::SUCCESS;
    }
    println!("\n{}", failures.join("\n\n"));
    if let Some(node) = &node {
        println!("\nthe end of the node's log:\n{}", node.log_end());
    }
    println!("\ntest result: FAILED. {passed} passed; {} failed\n", failures.len());
    ExitCode::FAILURE
}

async fn play(path: &Path, endpoints: &[Endpoint]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let script = parser::parse(&name(path), &text)?;
    runner::run(&script, endpoints).await
}
