//! The rules that hold for any file.

use super::table::{MACHINE_PATHS, WordRule};
use super::{Finding, Tree};

/// Each Rust file opens with a `//!` line that says what it is.
pub fn first_lines(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.rust() {
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            findings.push(Finding::new(path, "the first line is not `//! what this file is`"));
        }
    }
}

/// No Rust file is longer than `limit`, but those of `allowed`, which must need it.
pub fn lengths(tree: &Tree, limit: usize, allowed: &[(&str, &str)], findings: &mut Vec<Finding>) {
    for (path, text) in tree.rust() {
        let (lines, exempt) = (text.lines().count(), allowed.iter().any(|(name, _)| *name == path));
        if lines > limit && !exempt {
            findings.push(Finding::new(path, format!("{lines} lines, {limit} are allowed: divide it")));
        }
        if lines <= limit && exempt {
            findings.push(Finding::new(path, "is short enough: take it off the list of long files"));
        }
    }
    for (path, _) in allowed {
        if tree.text(path).is_none() {
            findings.push(Finding::new(*path, "is on the list of long files, but does not exist"));
        }
    }
}

/// Words stand only where their rules allow it; paths of one machine stand nowhere.
pub fn words(tree: &Tree, rules: &[WordRule], findings: &mut Vec<Finding>) {
    for (path, text) in tree.rust() {
        let holding: Vec<&WordRule> = rules
            .iter()
            .filter(|rule| rule.within.iter().any(|prefix| path.starts_with(prefix)))
            .filter(|rule| !rule.except.iter().any(|prefix| path.starts_with(prefix)))
            .collect();
        for (index, line) in text.lines().enumerate() {
            for rule in &holding {
                let seen = if rule.comments { line } else { without_comment(line) };
                if contains_word(seen, rule.word) {
                    let what = format!("`{}`: {}", rule.word, rule.reason);
                    findings.push(Finding::new(format!("{path}:{}", index + 1), what));
                }
            }
        }
    }
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|start| contains_path(line, start)) {
                findings.push(Finding::new(format!("{path}:{}", index + 1), "a path of one machine"));
            }
        }
    }
}

/// Each path that a document names between backticks exists, if it begins with one of `top_level`.
/// `<word>` and `{a,b}` stand for parts: what is before them must exist.
pub fn named_paths(tree: &Tree, document: &str, top_level: &[&str], findings: &mut Vec<Finding>) {
    let Some(text) = tree.text(document) else {
        findings.push(Finding::new(document, "is missing"));
        return;
    };
    for (index, line) in text.lines().enumerate() {
        let names = line.split(|c: char| c.is_whitespace() || "`()|,;→\"".contains(c));
        for name in names.filter(|name| top_level.iter().any(|top| name.starts_with(top))) {
            let fixed = name.split(['<', '{', '*', ':', '#']).next().unwrap_or_default();
            // `server/src/modules/<word>.rs` leaves the folder, `tests/tests/wire.rs.` a full stop.
            let fixed = if fixed.len() < name.len() {
                fixed.rfind('/').map_or("", |end| &fixed[..end])
            } else {
                fixed
            };
            let fixed = fixed.trim_end_matches(['.', '/']);
            if !fixed.is_empty() && !tree.has(fixed) {
                findings.push(Finding::new(
                    format!("{document}:{}", index + 1),
                    format!("{name} does not exist"),
                ));
            }
        }
    }
}

/// The line up to `//`. A `//` inside a string hides the rest of the line too, which costs a word rule
/// little and saves a parser.
pub(super) fn without_comment(line: &str) -> &str {
    match line.find("//") {
        // The `//` of an address is no comment.
        Some(start) if !line[..start].ends_with(':') => &line[..start],
        _ => line,
    }
}

/// Whether `word` stands in `line` with no letter, digit or underscore grown to its alphanumeric ends.
pub(super) fn contains_word(line: &str, word: &str) -> bool {
    let grows = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (head, tail) = (grows(word.chars().next()), grows(word.chars().next_back()));
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !(head && grows(before) || tail && grows(after))
    })
}

/// Whether a path that begins with `start` stands in `line`: not as the middle of a longer one.
fn contains_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(index, _)| {
        let before = line[..index].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_.-}~$".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: impl Fn(&Tree, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| finding.place).collect()
    }

    const RULE: WordRule = WordRule {
        word: "sled",
        within: &["server/"],
        except: &["server/store/"],
        comments: false,
        reason: "",
    };

    fn sled(path: &str, line: &str) -> bool {
        !found(|tree, out| words(tree, &[RULE], out), &[(path, line)]).is_empty()
    }

    #[test]
    fn a_file_says_what_it_is() {
        let files = [("a.rs", "//! A.\n"), ("b.rs", "// B.\n"), ("c.rs", ""), ("d.md", "D")];
        assert_eq!(found(first_lines, &files), ["b.rs", "c.rs"]);
    }

    #[test]
    fn a_file_has_its_bound_and_an_exception_must_be_needed() {
        let (long, short) = ("x\n".repeat(3), "x\n".repeat(2));
        let files = [("a.rs", long.as_str()), ("b.rs", short.as_str()), ("c.rs", long.as_str())];
        let allowed = [("b.rs", "why"), ("c.rs", "why"), ("gone.rs", "why")];
        let check = |tree: &Tree, out: &mut Vec<Finding>| lengths(tree, 2, &allowed, out);
        assert_eq!(found(check, &files), ["a.rs", "b.rs", "gone.rs"]);
    }

    #[test]
    fn words_are_whole_and_have_their_places() {
        assert!(sled("server/a.rs", "use sled::Db;"));
        assert!(sled("server/a.rs", "let a = sled;"));
        assert!(!sled("server/a.rs", "let sledge = tobog_sled;"));
        assert!(!sled("server/store/a.rs", "use sled::Db;"));
        assert!(!sled("other/a.rs", "use sled::Db;"));
        assert!(!sled("server/a.rs", "// not sled\n/// see `sled`"));
        assert!(sled("server/a.rs", "sled::open(path) // why"));
    }

    #[test]
    fn words_may_end_in_marks() {
        assert!(contains_word(&["todo", "!(\"later\")"].concat(), concat!("todo", "!(")));
        assert!(contains_word("\"jabber:client\"", "jabber:"));
        assert!(!contains_word("my_do_send(x)", "do_send"));
    }

    #[test]
    fn no_file_names_a_place_on_a_machine() {
        let home = ["cd /ho", "me/x"].concat();
        assert_eq!(
            found(|tree, out| words(tree, &[], out), &[("a.md", "ok\n"), ("b.sh", &home)]),
            ["b.sh:1"]
        );
        let relative = ["see ../wo", "rk/x and docs/wo", "rk/y"].concat();
        assert!(found(|tree, out| words(tree, &[], out), &[("a.md", &relative)]).is_empty());
    }

    #[test]
    fn a_document_names_only_what_exists() {
        let text =
            "`proto/src/a.rs`, `proto/src/<word>.rs`, proto/gone.rs.\n`proto/lost/{a,b}.rs` elsewhere/x\n";
        let files = [("proto/src/a.rs", ""), ("A.md", text)];
        let check = |tree: &Tree, out: &mut Vec<Finding>| named_paths(tree, "A.md", &["proto/"], out);
        assert_eq!(found(check, &files), ["A.md:1", "A.md:2"]);
        assert_eq!(found(check, &files[..1]), ["A.md"]);
    }
}
