//! The rules on what an operator sees: each log field, stop and metric of the code stands in its reference page,
//! each row of the pages is used, and each metric is fed.

use std::collections::BTreeSet;

use super::{Finding, Tree};

const LOG_PAGE: &str = "deploy/reference/log-fields.md";
const METRICS_PAGE: &str = "deploy/reference/metrics.md";
const METRICS_CODE: &str = "server/src/metrics.rs";
/// Where logs are written.
const LOGGING: &[&str] = &["proto/src/", "cluster/src/", "server/src/"];
/// Where metrics are shown: their names there must be real.
const SHOWING: &[&str] = &["deploy/", "k8s/"];
/// The macros of `tracing`.
const MACROS: &[&str] = &[
    "trace!(",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "span!(",
    "trace_span!(",
    "debug_span!(",
    "info_span!(",
    "warn_span!(",
    "error_span!(",
];
/// What Prometheus adds to the name of a histogram.
const SUFFIXES: &[&str] = &["_bucket", "_sum", "_count"];

/// Fields and stops of the log against their page, both ways.
pub fn log_fields(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(page) = tree.text(LOG_PAGE) else { return };
    let (fields, stops) = (rows(page, "| field |"), rows(page, "| stop |"));
    let (mut used_fields, mut used_stops) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in tree.rust().filter(|(path, _)| LOGGING.iter().any(|place| path.starts_with(place))) {
        for (line, argument) in arguments(text) {
            let Some((field, value)) = field(argument) else { continue };
            if !fields.contains(field) {
                let what = format!("the log field `{field}` is not in {LOG_PAGE}");
                findings.push(Finding::new(format!("{path}:{line}"), what));
            }
            used_fields.insert(field);
            let Some(stop) = value.filter(|_| field == "stop").and_then(quoted) else { continue };
            if !stops.contains(stop) {
                let what = format!("the stop `{stop}` is not in {LOG_PAGE}");
                findings.push(Finding::new(format!("{path}:{line}"), what));
            }
            used_stops.insert(stop);
        }
    }
    for unused in fields.difference(&used_fields).chain(stops.difference(&used_stops)) {
        findings.push(Finding::new(LOG_PAGE, format!("`{unused}` is nowhere in the code")));
    }
}

/// Metrics: those of the code are in the page, those that dashboards, alerts and pages name exist, and each
/// method that records one is called.
pub fn metrics(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(page) = tree.text(METRICS_PAGE) else { return };
    let known = rows(page, "| name |");
    let code = |path: &str| LOGGING.iter().any(|place| path.starts_with(place));
    for (path, text) in tree.files().filter(|(path, _)| code(path)) {
        for (index, line) in text.lines().enumerate() {
            let names = line.split('"').skip(1).step_by(2).filter(|name| is_metric(name));
            for name in names.filter(|name| !known.contains(name)) {
                let what = format!("the metric {name} is not in {METRICS_PAGE}");
                findings.push(Finding::new(format!("{path}:{}", index + 1), what));
            }
        }
    }
    for (path, text) in tree.files().filter(|(path, _)| SHOWING.iter().any(|place| path.starts_with(place))) {
        for (index, line) in text.lines().enumerate() {
            let words =
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| is_metric(word));
            let exists = |word: &&str| {
                known.contains(*word)
                    || SUFFIXES
                        .iter()
                        .any(|end| word.strip_suffix(end).is_some_and(|name| known.contains(name)))
            };
            for word in words.filter(|word| !exists(word)) {
                findings.push(Finding::new(
                    format!("{path}:{}", index + 1),
                    format!("{word} is no metric of ours"),
                ));
            }
        }
    }
    for method in tree.text(METRICS_CODE).map(recorders).unwrap_or_default() {
        let call = format!(".{method}(");
        let fed = tree.rust().any(|(path, text)| {
            path.starts_with("server/src/") && !path.starts_with("server/src/metrics") && calls(text, &call)
        });
        if !fed {
            findings
                .push(Finding::new(METRICS_CODE, format!("nobody calls `{method}`: its metric is not fed")));
        }
    }
}

/// Whether a word is the name of a metric: with the prefix, and none of the crates.
fn is_metric(word: &str) -> bool {
    const CRATES: &[&str] = &["althing_proto", "althing_cluster", "althing_server", "althing_tests"];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let named = word.strip_prefix("althing_").is_some_and(|rest| !rest.is_empty());
    named && word.chars().all(plain) && !CRATES.contains(&word)
}

/// The methods by which a node's metrics are recorded.
fn recorders(text: &str) -> Vec<&str> {
    let rest = text.split("impl NodeMetrics {").nth(1).unwrap_or_default();
    let body = rest.split("\n}").next().unwrap_or_default();
    let names = body.split("pub fn ").skip(1).filter_map(|after| after.split_once("(&self"));
    names.map(|(name, _)| name).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_')).collect()
}

/// Whether `call` stands in `text` behind the word `metrics`.
fn calls(text: &str, call: &str) -> bool {
    text.match_indices(call).any(|(start, _)| text[..start].trim_end().ends_with("metrics"))
}

/// First cells, between backticks, of the table whose header begins with `header`.
fn rows<'a>(page: &'a str, header: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line.starts_with(header) || (inside && line.starts_with('|'));
        names.extend(line.strip_prefix("| `").filter(|_| inside).and_then(|rest| rest.split('`').next()));
    }
    names
}

/// The arguments of all macros of `tracing` in `text`, with their lines.
fn arguments(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for name in MACROS {
        for (start, _) in text.match_indices(name) {
            let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
            let before = &text[line_start..start];
            let grown = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if grown || before.contains("//") || before.contains('"') {
                continue;
            }
            let line = text[..start].matches('\n').count() + 1;
            found.extend(split(&text[start + name.len()..]).into_iter().map(|argument| (line, argument)));
        }
    }
    found
}

/// The arguments of a call, up to its closing parenthesis: parted at commas outside brackets and strings.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut in_string, mut escaped) = (Vec::new(), 0, 0_u32, false, false);
    for (index, c) in text.char_indices() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => in_string = true,
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                parts.push(text[start..index].trim());
                break;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// The field that an argument sets, with its value where one is written; `None` for a message, or the level
/// of a span.
fn field(argument: &str) -> Option<(&str, Option<&str>)> {
    if argument.starts_with('"') || argument.starts_with("target:") || argument.starts_with("parent:") {
        return None;
    }
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (argument.trim_start_matches(['%', '?']), None),
    };
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.');
    is_name.then_some((name, value))
}

fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| field | kind |\n|---|---|\n| `peer` | x |\n| `stop` | x |\n\n\
                        | stop | x |\n|---|---|\n| `router` | x |\n";

    fn found(rule: fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        rule(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| format!("{} {}", finding.place, finding.what)).collect()
    }

    #[test]
    fn fields_in_order_pass() {
        let code = "debug!(stop = \"router\", %peer);\ntracing::warn!(\n    peer = f(a, \"x, y=\"),\n    \"lost, a\"\n);";
        assert!(found(log_fields, &[(LOG_PAGE, PAGE), ("server/src/a.rs", code)]).is_empty());
    }

    #[test]
    fn an_unknown_field_an_unknown_stop_and_an_unused_row_are_named() {
        let code = "\ninfo!(?who, \"x\");\ndebug_span!(\"stanza\", stop = \"roof\");";
        let found = found(log_fields, &[(LOG_PAGE, PAGE), ("server/src/a.rs", code)]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("server/src/a.rs:2 the log field `who`"), "{found:?}");
        assert!(found[1].starts_with("server/src/a.rs:3 the stop `roof`"), "{found:?}");
        assert!(found[2].contains("`peer`") && found[3].contains("`router`"), "{found:?}");
    }

    #[test]
    fn what_is_no_log_is_passed_over() {
        let code = "// debug!(a)\nprintln!(\"info!(b)\");\nmy_debug!(c);\nspan!(Level::INFO, \"d\");";
        assert!(arguments(code).iter().all(|(_, argument)| field(argument).is_none()));
    }

    const METRICS: &str = "| name |\n|---|\n| `althing_a_seconds` |\n";

    #[test]
    fn metrics_are_known_wherever_they_are_named() {
        let files = [
            (METRICS_PAGE, METRICS),
            ("server/src/m.rs", "x(\"althing_a_seconds\");\ny(\"althing_b\", \"althing_server\");"),
            (
                "deploy/alerts.yml",
                "rate(althing_a_seconds_bucket[5m])\nalthing_c > 1 # althing_server::router",
            ),
        ];
        let found = found(metrics, &files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("server/src/m.rs:2 the metric althing_b"), "{found:?}");
        assert!(found[1].starts_with("deploy/alerts.yml:2 althing_c"), "{found:?}");
    }

    #[test]
    fn a_metric_that_nobody_feeds_is_named() {
        let code = "impl NodeMetrics {\n    pub fn register(x: u8) {}\n    pub fn fed(&self) {}\n    pub fn unfed(&self) {}\n}\n";
        let files = [
            (METRICS_PAGE, METRICS),
            (METRICS_CODE, code),
            ("server/src/a.rs", "node\n    .metrics\n    .fed();"),
        ];
        assert_eq!(found(metrics, &files).len(), 1);
    }
}
