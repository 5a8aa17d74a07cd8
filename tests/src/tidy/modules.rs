//! The rules on `server/src/modules`: each module is registered, names its specification and has a wire script.

use std::collections::BTreeSet;

use super::{Finding, Tree};

const FOLDER: &str = "server/src/modules/";
const REGISTRY: &str = "server/src/modules/mod.rs";

/// Each file (or folder) of a module has a line in `modules!`, a `SPEC`, and a script `tests/wire/NAME.wire`.
pub fn registered(tree: &Tree, findings: &mut Vec<Finding>) {
    let names: BTreeSet<&str> = tree
        .rust()
        .filter_map(|(path, _)| path.strip_prefix(FOLDER))
        .filter_map(|rest| rest.split('/').next())
        .map(|name| name.trim_end_matches(".rs"))
        .filter(|name| *name != "mod")
        .collect();
    let registry = tree.text(REGISTRY).and_then(registry_of).unwrap_or_default();
    for name in names {
        let place = format!("{FOLDER}{name}");
        let own: Vec<&str> = tree
            .rust()
            .filter(|(path, _)| *path == format!("{place}.rs") || path.starts_with(&format!("{place}/")))
            .map(|(_, text)| text)
            .collect();
        if !registry.contains(name) {
            findings.push(Finding::new(&place, format!("has no line in `modules!` of {REGISTRY}")));
        }
        if !own.iter().any(|text| text.contains("const SPEC")) {
            findings.push(Finding::new(&place, "has no `const SPEC`"));
        }
        let script = format!("tests/wire/{name}.wire");
        if tree.text(&script).is_none() {
            findings.push(Finding::new(&place, format!("has no wire script {script}")));
        }
    }
}

/// The names in `modules! { .. }`, from which `mod` and `REGISTRY` are made.
fn registry_of(text: &str) -> Option<BTreeSet<&str>> {
    let (_, rest) = text.split_once("\nmodules! {\n")?;
    let (list, _) = rest.split_once("\n}")?;
    let lines = list.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    Some(lines.map(|line| line.trim_start_matches("pub ").trim_end_matches(',')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        registered(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| finding.what).collect()
    }

    const ONE: &str = "//! Modules.\n\nmodules! {\n    // First.\n    ping,\n}\n";

    #[test]
    fn a_whole_module_is_in_order() {
        let files =
            [(REGISTRY, ONE), ("server/src/modules/ping.rs", "const SPEC: u8"), ("tests/wire/ping.wire", "")];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn each_missing_part_is_named() {
        let files = [(REGISTRY, ONE), ("server/src/modules/time.rs", "")];
        assert_eq!(found(&files).len(), 3);
    }

    #[test]
    fn a_folder_is_one_module() {
        let files = [
            (REGISTRY, "\nmodules! {\n    pub presence,\n}\n"),
            ("server/src/modules/presence/mod.rs", "pub const SPEC: u8"),
            ("server/src/modules/presence/probe.rs", ""),
            ("tests/wire/presence.wire", ""),
        ];
        assert!(found(&files).is_empty());
    }
}
