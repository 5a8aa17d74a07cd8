//! Namespace prefixes in force at one place of a document (Namespaces in XML 1.0 §3 to §6).

use rxml::{Namespace, NcName, XMLNS_XMLNS};

use super::error::{LimitExceeded, XmlError, not_well_formed};
use super::limits::{BINDINGS, NAMESPACE_BYTES};

/// A stack of declarations, the innermost last. It is kept here, not in the tokenizer, because the
/// tokenizer's own resolver lets a second `xmlns` on one element win over the first.
#[derive(Debug, Default)]
pub(super) struct Scope {
    bindings: Vec<(Option<NcName>, Namespace<'static>)>,
}

impl Scope {
    /// The place to [`rewind`](Self::rewind) to when the element that opens now has ended.
    pub(super) fn mark(&self) -> usize {
        self.bindings.len()
    }

    /// Forgets what was declared since `mark`.
    pub(super) fn rewind(&mut self, mark: usize) {
        self.bindings.truncate(mark);
    }

    /// Gives back the room that deep elements needed.
    pub(super) fn shrink(&mut self) {
        self.bindings.shrink_to_fit();
    }

    /// Binds `prefix`, or the default namespace, on the element that began at `mark`. The tokenizer
    /// has refused what Namespaces §3 reserves for `xml`, and an empty name for a prefix.
    pub(super) fn declare(
        &mut self,
        mark: usize,
        prefix: Option<NcName>,
        uri: String,
    ) -> Result<(), XmlError> {
        if self.bindings[mark..].iter().any(|(known, _)| *known == prefix) {
            return Err(not_well_formed("duplicate namespace declaration"));
        }
        if uri == XMLNS_XMLNS {
            return Err(not_well_formed("reserved namespace name"));
        }
        if uri.len() > NAMESPACE_BYTES {
            return Err(LimitExceeded::NamespaceBytes(NAMESPACE_BYTES).into());
        }
        if self.bindings.len() >= BINDINGS {
            return Err(LimitExceeded::Bindings(BINDINGS).into());
        }
        self.bindings.push((prefix, Namespace::from(uri)));
        Ok(())
    }

    /// The default namespace in force; none if it was never declared, or undeclared by `xmlns=''`.
    pub(super) fn default_namespace(&self) -> &Namespace<'static> {
        self.find(None).unwrap_or(Namespace::none())
    }

    /// The namespace that `prefix` stands for.
    pub(super) fn prefixed(&self, prefix: &NcName) -> Result<&Namespace<'static>, XmlError> {
        if prefix == "xml" {
            return Ok(Namespace::xml());
        }
        self.find(Some(prefix))
            .ok_or_else(|| not_well_formed(format!("namespace prefix {prefix} is not declared")))
    }

    fn find(&self, prefix: Option<&NcName>) -> Option<&Namespace<'static>> {
        self.bindings.iter().rev().find(|(known, _)| known.as_ref() == prefix).map(|(_, uri)| uri)
    }
}
