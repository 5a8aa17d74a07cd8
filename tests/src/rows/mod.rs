//! Which test shows which behaviour. A test names its row: a function by its first words (`s4_s8_a_guard_blocks`) or by
//! its doc line (`/// S4, S8: ...`), a wire script in a comment.

pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::Tree;
use table::{Due, ROWS, Row};

/// The tests that name each row.
pub type Named = BTreeMap<&'static str, BTreeSet<String>>;

/// Looks for the rows in the tests of a tree.
#[must_use]
pub fn named(tree: &Tree) -> Named {
    let mut named = Named::new();
    for (path, text) in tree.files() {
        let found: Vec<(String, String)> = if path.ends_with(".rs") {
            of_rust(path, text)
        } else if path.ends_with(".wire") {
            of_comments(path, text)
        } else {
            continue;
        };
        for (id, test) in found {
            if let Some(row) = ROWS.iter().find(|row| row.id == id) {
                named.entry(row.id).or_default().insert(test);
            }
        }
    }
    named
}

/// Rows that are due and that no test names.
#[must_use]
pub fn gaps(named: &Named) -> Vec<&'static Row> {
    ROWS.iter().filter(|row| row.due == Due::Now && !named.contains_key(row.id)).collect()
}

/// All rows with their tests, for people.
#[must_use]
pub fn report(named: &Named) -> String {
    let mut out = String::new();
    for row in ROWS {
        out.push_str(&format!("{:<4}{}\n", row.id, row.title));
        match (named.get(row.id), row.due) {
            (Some(tests), _) => tests.iter().for_each(|test| out.push_str(&format!("      {test}\n"))),
            (None, Due::Now) => out.push_str("      GAP: no test names it\n"),
            (None, Due::With(what)) => out.push_str(&format!("      waits for {what}\n")),
        }
    }
    out
}

/// The tests of a file of Rust.
fn of_rust(path: &str, text: &str) -> Vec<(String, String)> {
    let (mut found, mut doc, mut is_test) = (Vec::new(), None, false);
    for line in text.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            doc.get_or_insert(said.trim());
        } else if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if let Some(name) = function(line) {
            let of_doc = doc.map(leading).unwrap_or_default();
            if is_test {
                let ids = name.split('_').map(str::to_uppercase).take_while(|word| is_id(word));
                found.extend(ids.chain(of_doc).map(|id| (id, format!("{path} {name}"))));
            }
            (doc, is_test) = (None, false);
        } else if !line.starts_with("//") {
            (doc, is_test) = (None, false);
        }
    }
    found
}

/// The name of the function that the line begins.
fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split('(').next()
}

/// The ids that a doc line begins with: `S4, S8: ...`.
fn leading(line: &str) -> Vec<String> {
    let Some((ids, _)) = line.split_once(':') else { return Vec::new() };
    let ids: Vec<&str> = ids.split(", ").collect();
    if ids.iter().all(|id| is_id(id)) { ids.into_iter().map(str::to_owned).collect() } else { Vec::new() }
}

/// The ids in the comments of a wire script.
fn of_comments(path: &str, text: &str) -> Vec<(String, String)> {
    let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix('#'));
    let words = comments.flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
    words.filter(|word| is_id(word)).map(|id| (id.to_owned(), path.to_owned())).collect()
}

fn is_id(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|letter| "PTCISR".contains(letter))
        && !chars.as_str().is_empty()
        && chars.all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(files: &[(&str, &str)]) -> Vec<&'static str> {
        named(&Tree::of(files)).into_keys().collect()
    }

    #[test]
    fn a_test_names_its_rows_by_its_name_or_its_doc_line() {
        let code = "#[test]\nfn s4_s8_a_guard() {}\n\n/// R4 is not meant.\n#[test]\nfn other() {}\n\n\
                    /// P6, P8: order.\n/// T1 neither.\n#[actix_rt::test]\nasync fn in_order() {}\n";
        assert_eq!(ids(&[("server/src/a.rs", code)]), ["P6", "P8", "S4", "S8"]);
    }

    #[test]
    fn what_is_no_test_names_nothing() {
        let code = "/// P6: a rule.\nfn rule() {}\nfn s4_helper() {}\n// I1: here\n";
        assert!(ids(&[("server/src/a.rs", code), ("A.md", "P6")]).is_empty());
    }

    #[test]
    fn a_wire_script_names_rows_in_its_comments() {
        let script = "# R15, its cases; I4.\nalice sends:\n    <iq id='P6'/>\n";
        assert_eq!(ids(&[("tests/wire/a.wire", script)]), ["I4", "R15"]);
    }

    #[test]
    fn a_row_that_is_due_and_not_named_is_a_gap() {
        let all: String = ROWS
            .iter()
            .filter(|row| row.due == Due::Now && row.id != "P6")
            .map(|row| format!("# {}\n", row.id))
            .collect();
        let named = named(&Tree::of(&[("tests/wire/a.wire", &all)]));
        assert_eq!(gaps(&named).iter().map(|row| row.id).collect::<Vec<_>>(), ["P6"]);
        assert!(report(&named).contains("waits for other servers and rooms"));
    }

    #[test]
    fn each_id_stands_once() {
        let ids: BTreeSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert!(ids.len() == ROWS.len() && ids.iter().all(|id| is_id(id)));
    }
}
