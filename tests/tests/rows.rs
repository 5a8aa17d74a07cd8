//! Every behaviour that is owed has a test that names it (`tests/src/rows/mod.rs`); `make rows` shows which.

use std::path::Path;

use althing_tests::rows;
use althing_tests::tidy::Tree;

#[test]
fn each_row_that_is_due_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tree = Tree::read(&root).expect("the tree can be read");
    let named = rows::named(&tree);
    println!("{}", rows::report(&named));
    assert!(named.contains_key("I1"), "this is not the whole tree");
    let gaps: Vec<&str> = rows::gaps(&named).iter().map(|row| row.id).collect();
    assert!(gaps.is_empty(), "no test names {gaps:?}");
}
