//! The house reads itself: layers, sizes, names. The rules and their reasons: `tests/src/tidy/table.rs`.

use std::path::Path;

use althing_tests::tidy::{self, Tree};

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tree = Tree::read(&root).expect("the tree can be read");
    assert!(tree.has("proto/src/lib.rs") && tree.has("server/src/main.rs"), "this is not the whole tree");
    let findings = tidy::inspect(&tree);
    let report: Vec<String> =
        findings.iter().map(|finding| format!("{}: {}", finding.place, finding.what)).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", report.len(), report.join("\n"));
}
