//! Every queue, buffer and table that others can fill: its bound, what becomes of what does not fit, its metric.
//!
//! ARCHITECTURE.md's tables are made from this one (`althing reference queues`). The tidy test looks for what makes a
//! queue in the sources, and each must be named by a row here ([`Queue::held`]).

mod nodes;
mod strangers;

use std::fmt::Write as _;

/// One row. Its texts are Markdown.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// What fills.
    pub what: &'static str,
    /// Its bound, and where that stands.
    pub bound: &'static str,
    /// What happens when it is full.
    pub full: &'static str,
    /// The metric that shows it, or why there is none.
    pub metric: &'static str,
    /// Where it is held: a file of the sources, and a word of the line that makes it or declares its field.
    pub held: &'static [(&'static str, &'static str)],
}

/// A row without a place in the sources: a bound on something that is no queue.
const fn queue(what: &'static str, bound: &'static str, full: &'static str, metric: &'static str) -> Queue {
    Queue { what, bound, full, metric, held: &[] }
}

impl Queue {
    /// The row, with its places.
    const fn held(mut self, held: &'static [(&'static str, &'static str)]) -> Queue {
        self.held = held;
        self
    }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Queue> {
    strangers::STRANGERS.iter().chain(nodes::NODES)
}

/// The tables of ARCHITECTURE.md.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    push_table(&mut out, strangers::STRANGERS);
    out.push_str("\nBetween nodes. Only members fill these, but on behalf of strangers:\n\n");
    push_table(&mut out, nodes::NODES);
    out
}

fn push_table(out: &mut String, rows: &[Queue]) {
    out.push_str("| what fills | bound | when full | metric |\n|---|---|---|---|\n");
    for Queue { what, bound, full, metric, .. } in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {what} | {bound} | {full} | {metric} |");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::metrics::{CLUSTER_METRICS, METRICS};

    const BEGIN: &str = "<!-- Made by `althing reference queues`; `make fix` writes it anew. -->\n";
    const END: &str = "<!-- End of what `althing reference queues` made. -->";

    fn read(path: &str) -> String {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn the_tables_are_up_to_date() {
        let page = read("ARCHITECTURE.md");
        let (_, rest) = page.split_once(BEGIN).expect("the mark before the tables");
        let (tables, _) = rest.split_once(END).expect("the mark after the tables");
        assert_eq!(tables, markdown(), "run `make fix`");
    }

    #[test]
    fn each_row_is_whole_and_stands_once() {
        let mut seen = BTreeSet::new();
        for row in all() {
            for text in [row.what, row.bound, row.full, row.metric] {
                assert!(!text.is_empty() && !text.contains(['|', '\n']), "{row:?}");
            }
            assert!(seen.insert(row.what), "twice: {}", row.what);
        }
    }

    #[test]
    fn each_metric_of_a_row_exists() {
        let known: BTreeSet<&str> = METRICS.iter().chain(CLUSTER_METRICS).map(|metric| metric.name).collect();
        for row in all() {
            let names = row.metric.split('`').skip(1).step_by(2);
            for name in names.filter(|name| name.starts_with("althing_")) {
                assert!(known.contains(name), "{name}, of: {}", row.what);
            }
        }
    }

    #[test]
    fn each_place_is_where_its_row_says() {
        for (path, word) in all().flat_map(|row| row.held) {
            assert!(read(path).contains(word), "{path} has no {word}");
        }
    }
}
