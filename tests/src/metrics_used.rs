//! Which metrics the alerts and the dashboard ask for, and whether running nodes have them.
//!
//! PromQL is read just far enough: a name, and the names of the labels between the braces that follow it. What
//! [`used`] returns for the files of `deploy/` is compared with what nodes answer on `/metrics` by [`missing`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where metrics are shown, from the root of the tree.
const PLACES: &[(&str, &str)] = &[("deploy/alerts", ".rules.yml"), ("deploy/grafana", ".json")];
/// Beginnings of the names of metrics that a node has. Others (`up`) come from Prometheus itself.
const OURS: &[&str] = &["althing_", "process_"];
/// Labels that Prometheus adds when it scrapes, or makes of buckets.
const ADDED: &[&str] = &["job", "namespace", "instance", "le"];

/// A metric by its series' name, and the labels that some expression selects it by.
pub type Used = BTreeMap<String, BTreeSet<String>>;

/// The metrics of all rule files and dashboards below `root`, the root of the tree.
///
/// # Errors
/// A folder or file that cannot be read, or a folder without such a file.
pub fn used(root: &Path) -> Result<Used> {
    let mut found = Used::new();
    for (folder, end) in PLACES {
        let files = files(&root.join(folder), end)?;
        ensure!(!files.is_empty(), "{folder}: no *{end}");
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            // In JSON the quotes within an expression are escaped.
            collect(&text.replace("\\\"", "\""), &mut found);
        }
    }
    Ok(found)
}

/// What `used` asks for and none of these answers of `/metrics` has: a line each, empty when nothing is missing.
///
/// A metric may be on one node only (on the leader, say), so hand in the answers of all nodes of a cluster.
#[must_use]
pub fn missing(used: &Used, answers: &[String]) -> Vec<String> {
    let mut have = Used::new();
    for line in answers.iter().flat_map(|answer| answer.lines()).filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        have.entry(name.to_owned()).or_default().extend(labels(&line[name.len()..]));
    }
    let mut lines = Vec::new();
    for (name, labels) in used {
        match have.get(name) {
            None => lines.push(format!("{name}: no node has it")),
            Some(known) => {
                let unknown = labels.difference(known);
                lines.extend(unknown.map(|label| format!("{name}: has no label {label}")));
            }
        }
    }
    lines
}

fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end)) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Adds the metrics that stand in `text`. A recorded series (`job:name:sum`) is none: its rule names what it is
/// made of.
fn collect(text: &str, found: &mut Used) {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = text;
    while let Some(start) = rest.find(part) {
        rest = &rest[start..];
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_metric(word) {
            found.entry(word.to_owned()).or_default().extend(labels(after));
        }
        rest = after;
    }
}

fn is_metric(word: &str) -> bool {
    let named = |prefix: &&str| word.strip_prefix(*prefix).is_some_and(|rest| !rest.is_empty());
    !word.contains(':') && OURS.iter().any(named)
}

/// The names of the labels in the braces at the beginning of `text`, but for those that Prometheus adds. Empty
/// when there are no braces.
fn labels(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some(mut rest) = text.strip_prefix('{') else { return names };
    while let Some(end) = rest.find(['=', '!', '}']) {
        if rest[end..].starts_with('}') {
            break;
        }
        let name = rest[..end].trim_matches([',', ' ', '\n']);
        if !ADDED.contains(&name) {
            names.insert(name.to_owned());
        }
        // Over the value: a `}` or `=` within the quotes is none.
        let Some(open) = rest[end..].find('"') else { break };
        rest = &rest[end + open + 1..];
        let Some(close) = closing_quote(rest) else { break };
        rest = &rest[close + 1..];
    }
    names
}

/// The place of the first quote that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, c)| {
        let found = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_in(text: &str) -> Used {
        let mut found = Used::new();
        collect(text, &mut found);
        found
    }

    fn entry(name: &str, labels: &[&str]) -> (String, BTreeSet<String>) {
        (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect())
    }

    #[test]
    fn names_and_labels_are_found() {
        let text = "sum by (kind) (rate(althing_a_total{job=~\".*x}=\", kind!=\"q\\\"\", op = \"w\"}[5m])) \
                    / job:althing_b:sum > process_c and althing_a_total{result=\"no\"} or up";
        let expected =
            Used::from([entry("althing_a_total", &["kind", "op", "result"]), entry("process_c", &[])]);
        assert_eq!(used_in(text), expected);
    }

    #[test]
    fn what_prometheus_adds_is_not_asked_of_a_node() {
        let used = used_in("althing_a_bucket{instance=\"a\",le=\"1\",namespace=\"n\",op=\"x\"}");
        assert_eq!(used, Used::from([entry("althing_a_bucket", &["op"])]));
    }

    #[test]
    fn what_no_node_has_is_named() {
        let used = used_in("althing_a{x=\"1\"} althing_b{y=\"1\"} althing_c althing_d");
        let answers = [
            "# TYPE althing_a gauge\nalthing_a{x=\"2\"} 1\n# HELP althing_d Not there.\n".to_owned(),
            "althing_b{z=\"1\"} 1\nalthing_c 1\n".to_owned(),
        ];
        assert_eq!(missing(&used, &answers), ["althing_b: has no label y", "althing_d: no node has it"]);
        assert_eq!(missing(&used, &answers[..1]).len(), 3);
    }
}
