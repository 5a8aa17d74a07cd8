//! PURE: local parts with characters that an address must not have (XEP-0106).
//!
//! Escaped and unescaped text are not mixed: on the wire, in the store and in comparisons stands what is escaped.

use std::borrow::Cow;

/// The characters that are escaped, and the backslash.
const DISALLOWED: &[(char, &str)] = &[
    (' ', "20"),
    ('"', "22"),
    ('&', "26"),
    ('\'', "27"),
    ('/', "2f"),
    (':', "3a"),
    ('<', "3c"),
    ('>', "3e"),
    ('@', "40"),
    ('\\', "5c"),
];

/// The character whose escaped form `text` begins with, behind the backslash.
fn escaped(text: &str) -> Option<char> {
    DISALLOWED.iter().find(|(_, code)| text.starts_with(code)).map(|(character, _)| *character)
}

/// Text that a person wrote, as a local part (§4.2). A backslash is escaped only where it would be taken for an escape.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| DISALLOWED.iter().any(|(character, _)| *character == c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        let code = DISALLOWED.iter().find(|(character, _)| *character == c).map(|(_, code)| *code);
        match code {
            Some("5c") if escaped(&text[at + 1..]).is_none() => out.push(c),
            Some(code) => {
                out.push('\\');
                out.push_str(code);
            }
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A local part, as people read it (§4.3). What is no escape of that list stays as it is.
#[must_use]
pub fn unescape(local: &str) -> Cow<'_, str> {
    if !local.contains('\\') {
        return Cow::Borrowed(local);
    }
    let mut out = String::with_capacity(local.len());
    let mut rest = local;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match escaped(after) {
            Some(character) => {
                out.push(character);
                rest = &after[2..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Whether a new account may have the local part: no escaped space is its first or last character (§4.2).
#[must_use]
pub fn may_be_registered(local: &str) -> bool {
    !local.starts_with("\\20") && !unescape(local).ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of XEP-0106.
    #[test]
    fn text_is_escaped_and_comes_back() {
        for (text, local) in [
            ("d'artagnan", "d\\27artagnan"),
            ("space cadet", "space\\20cadet"),
            ("call me \"ishmael\"", "call\\20me\\20\\22ishmael\\22"),
            ("at&t guy", "at\\26t\\20guy"),
            ("/.fanboy", "\\2f.fanboy"),
            ("::foo::", "\\3a\\3afoo\\3a\\3a"),
            ("<foo>", "\\3cfoo\\3e"),
            ("user@host", "user\\40host"),
            ("c:\\net", "c\\3a\\net"),
            ("c:\\\\net", "c\\3a\\\\net"),
            ("c:\\cool stuff", "c\\3a\\cool\\20stuff"),
            ("c:\\5commas", "c\\3a\\5c5commas"),
            ("plain", "plain"),
            ("\\27", "\\5c27"),
        ] {
            assert_eq!(escape(text), local, "{text}");
            assert_eq!(unescape(local), text, "{local}");
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for local in ["\\2plus\\2is\\4", "foo\\bar", "foob\\41r", "\\", "a\\2"] {
            assert_eq!(unescape(local), local);
        }
    }

    #[test]
    fn no_space_at_either_end() {
        assert!(
            may_be_registered("space\\20cadet")
                && may_be_registered("juliet")
                && may_be_registered("a\\5c20")
        );
        assert!(!may_be_registered("\\20cadet") && !may_be_registered("cadet\\20"));
    }
}
