//! The names of a script: `{alice}`, `{alice.bare}`, `{domain}`, and what `{=name}` caught on the way.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Values by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(BTreeMap<String, String>);

impl Captures {
    /// The value of `name`, if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Gives `name` a value; an older one is forgotten.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// Replaces each `{name}` of `text` by its value passed through `escape`; `{{` stands for `{`.
    ///
    /// # Errors
    /// A name that is not known, or a brace that is never closed.
    pub fn fill(&self, text: &str, escape: impl Fn(&str) -> String) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            out.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            if let Some(literal) = rest.strip_prefix('{') {
                out.push('{');
                rest = literal;
                continue;
            }
            let Some(end) = rest.find('}') else { bail!("`{{` without `}}` in {text:?}") };
            let name = &rest[..end];
            match self.get(name) {
                Some(value) => out.push_str(&escape(value)),
                None => bail!("nothing is called {{{name}}} here"),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Escapes `value` for element text and for attribute values in either quotes.
#[must_use]
pub fn escape_xml(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_names_and_escapes_them() {
        let mut captures = Captures::default();
        captures.set("alice", "a<b@localhost/x");
        assert_eq!(captures.fill("to='{alice}' {{}", escape_xml).unwrap(), "to='a&lt;b@localhost/x' {}");
    }

    #[test]
    fn an_unknown_name_is_an_error_and_not_an_empty_string() {
        let error = Captures::default().fill("{bob}", str::to_owned).unwrap_err();
        assert_eq!(error.to_string(), "nothing is called {bob} here");
        assert!(Captures::default().fill("{bob", str::to_owned).is_err());
    }
}
