//! The rule on queues: whatever makes one in the sources is named by a row of `server/src/queues/`, or is none of
//! those that others can fill, with the reason in [`NOT_QUEUES`](super::table::NOT_QUEUES).
//!
//! A `Notify` holds nothing: what it wakes for is in one of these.

use super::checks::{contains_word, without_comment};
use super::{Finding, Tree};

const TABLE: &str = "server/src/queues/";
/// Where queues are.
const WITHIN: &[&str] = &["proto/src/", "cluster/src/", "server/src/"];
/// Files that only tests use.
const TESTS: &[&str] = &["tests.rs", "/tests/", "_tests.rs", "fake.rs", "testing.rs"];
/// What makes a queue.
const MAKERS: &[&str] = &[
    "mpsc::channel",
    "broadcast::channel",
    "unbounded_channel",
    "sync_channel",
    "Semaphore::new",
    "set_mailbox_capacity",
];
/// What is one where it is a field.
const FIELDS: &[&str] = &["VecDeque<", "BinaryHeap<"];

/// Each queue of the sources stands in the table, and each place of the table is a queue.
pub fn queues(tree: &Tree, allowed: &[(&str, &str, &str)], findings: &mut Vec<Finding>) {
    let named: Vec<(&str, &str, &str)> = tree
        .rust()
        .filter(|(path, _)| path.starts_with(TABLE))
        .flat_map(|(path, text)| places(text).map(move |(file, word)| (path, file, word)))
        .collect();
    let made: Vec<(&str, usize, &str)> = tree
        .rust()
        .filter(|(path, _)| WITHIN.iter().any(|place| path.starts_with(place)) && !path.starts_with(TABLE))
        .filter(|(path, _)| !TESTS.iter().any(|part| path.contains(part)))
        .flat_map(|(path, text)| makers(text).map(move |(number, line)| (path, number, line)))
        .collect();
    for (path, number, line) in &made {
        let known = named.iter().any(|(_, file, word)| file == path && contains_word(line, word))
            || allowed.iter().any(|(file, word, _)| file == path && contains_word(line, word));
        if !known {
            let what = format!("a queue without a row in {TABLE}: say its bound, its policy and its metric");
            findings.push(Finding::new(format!("{path}:{number}"), what));
        }
    }
    let is_made = |file: &str, word: &str| {
        made.iter().any(|(path, _, line)| *path == file && contains_word(line, word))
    };
    for (table, file, word) in &named {
        if !is_made(file, word) {
            findings.push(Finding::new(*table, format!("{file} makes no queue with `{word}`")));
        }
    }
    for (file, word, _) in allowed {
        if !is_made(file, word) {
            findings.push(Finding::new(*file, format!("makes no queue with `{word}`: take it off the list")));
        }
    }
}

/// The places that a file of the table names: pairs of strings of which the first is a file of Rust.
fn places(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("(\"").filter_map(|rest| {
        let (file, rest) = rest.split_once("\", \"")?;
        let (word, _) = rest.split_once("\")")?;
        (file.ends_with(".rs") && !file.contains(' ')).then_some((file, word))
    })
}

/// The lines that make a queue, outside the tests at the foot of a file.
fn makers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().enumerate().filter_map(|(index, line)| {
        let line = without_comment(line);
        let made = !line.trim_start().starts_with("use ") && MAKERS.iter().any(|maker| line.contains(maker));
        let declared = FIELDS.iter().any(|field| line.contains(field))
            && line.trim_end().ends_with(',')
            && !["fn ", "let ", "&", "impl "].iter().any(|other| line.contains(other));
        (made || declared).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str =
        "queue(\"a\", \"8 in `b.rs`\", \"dropped\", \"none\").held(&[(\"server/src/a.rs\", \"LIMIT\")]),\n";
    const TABLE_FILE: &str = "server/src/queues/strangers.rs";

    fn found(files: &[(&str, &str)], allowed: &[(&str, &str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        queues(&Tree::of(files), allowed, &mut findings);
        findings.into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn what_a_row_names_is_in_order() {
        let code =
            "use tokio::sync::mpsc::channel;\nlet (a, b) = mpsc::channel(LIMIT);\n// mpsc::channel(8)\n";
        assert!(found(&[(TABLE_FILE, ROWS), ("server/src/a.rs", code)], &[]).is_empty());
    }

    #[test]
    fn a_queue_without_a_row_and_a_row_without_a_queue_are_named() {
        let code = "struct A {\n    letters: VecDeque<u8>,\n}\nfn f(mut a: VecDeque<u8>,\n b: &mut VecDeque<u8>,\n) {}\n";
        let files = [(TABLE_FILE, ROWS), ("server/src/a.rs", code)];
        assert_eq!(found(&files, &[]), ["server/src/a.rs:2", TABLE_FILE]);
    }

    #[test]
    fn an_exception_must_be_needed() {
        let code = "let (a, b) = mpsc::channel(LIMIT);\nlet places = Semaphore::new(cores);\n";
        let files = [(TABLE_FILE, ROWS), ("server/src/a.rs", code)];
        assert_eq!(found(&files, &[]), ["server/src/a.rs:2"]);
        assert!(found(&files, &[("server/src/a.rs", "places", "why")]).is_empty());
        let stale = [("server/src/a.rs", "places", "why"), ("server/src/b.rs", "places", "why")];
        assert_eq!(found(&files, &stale), ["server/src/b.rs"]);
    }

    #[test]
    fn tests_may_have_queues_of_their_own() {
        let code = "let (a, b) = mpsc::channel(LIMIT);\n#[cfg(test)]\nmod tests {\n    let c = mpsc::channel(1);\n}\n";
        let files =
            [(TABLE_FILE, ROWS), ("server/src/a.rs", code), ("server/src/a/tests.rs", "mpsc::channel(1)")];
        assert!(found(&files, &[]).is_empty());
    }
}
