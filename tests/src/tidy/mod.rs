//! The house reads itself: rules on the tree, each with its reason. `tests/tests/tidy.rs` runs them.
//!
//! A new rule is a line in [`table`]; what a line cannot say is a function in [`checks`].

pub mod checks;
pub mod modules;
pub mod queues;
pub mod references;
pub mod table;
pub mod tree;

pub use tree::Tree;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The path from the root of the tree, with the line where there is one: `proto/src/jid.rs:12`.
    pub place: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { place: place.into(), what: what.into() }
    }
}

/// All rules on a tree; empty when it is tidy.
#[must_use]
pub fn inspect(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::first_lines(tree, &mut findings);
    checks::lengths(tree, table::MAX_LINES, table::LONG_FILES, &mut findings);
    checks::words(tree, table::WORDS, &mut findings);
    checks::named_paths(tree, "ARCHITECTURE.md", table::TOP_LEVEL, &mut findings);
    modules::registered(tree, &mut findings);
    queues::queues(tree, table::NOT_QUEUES, &mut findings);
    references::log_fields(tree, &mut findings);
    references::metrics(tree, &mut findings);
    findings.sort();
    findings
}
