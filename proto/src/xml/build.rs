//! Short ways to read and write attributes of elements.

use minidom::{Element, ElementBuilder};
use rxml::{Namespace, NcNameStr, xml_ncname};

/// Attributes and namespace of an [`Element`].
pub trait ElementExt {
    /// Sets the attribute `name`, which has no namespace; an old value is replaced.
    fn set(&mut self, name: &'static NcNameStr, value: impl AsRef<str>);
    /// Removes the attribute `name`, which has no namespace, and gives its value.
    fn unset(&mut self, name: &NcNameStr) -> Option<String>;
    /// Whether the element is in the namespace `ns`. Allocates nothing, unlike [`Element::ns`].
    fn is_ns(&self, ns: &str) -> bool;
    /// The value of `xml:lang` on this very element (RFC 6120 §8.1.5).
    fn lang(&self) -> Option<&str>;
    /// Sets `xml:lang`; an old value is replaced.
    fn set_lang(&mut self, lang: &str);
}

impl ElementExt for Element {
    fn set(&mut self, name: &'static NcNameStr, value: impl AsRef<str>) {
        self.attrs_mut().insert(Namespace::NONE, name.to_owned(), value.as_ref().to_owned());
    }

    fn unset(&mut self, name: &NcNameStr) -> Option<String> {
        self.attrs_mut().remove(Namespace::none(), name)
    }

    fn is_ns(&self, ns: &str) -> bool {
        self.has_ns(ns)
    }

    fn lang(&self) -> Option<&str> {
        self.attr_ns(Namespace::xml(), "lang")
    }

    fn set_lang(&mut self, lang: &str) {
        self.attrs_mut().insert(Namespace::XML, xml_ncname!("lang").to_owned(), lang.to_owned());
    }
}

/// Attributes of an [`ElementBuilder`].
pub trait BuilderExt: Sized {
    /// Sets the attribute `name`, which has no namespace; an old value is replaced.
    #[must_use]
    fn set(self, name: &'static NcNameStr, value: impl AsRef<str>) -> Self;
}

impl BuilderExt for ElementBuilder {
    fn set(self, name: &'static NcNameStr, value: impl AsRef<str>) -> Self {
        self.attr(name.to_owned(), value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ns;
    use crate::xml::name;

    #[test]
    fn attributes_are_set_replaced_and_removed() {
        let mut iq =
            Element::builder("iq", ns::CLIENT).set(name!("type"), "get").set(name!("id"), "1").build();
        iq.set(name!("type"), "result");
        assert_eq!(iq.attr("type"), Some("result"));
        assert_eq!(iq.unset(name!("id")).as_deref(), Some("1"));
        assert_eq!(iq.attr("id"), None);
        assert_eq!(iq.unset(name!("id")), None);
        iq.set_lang("is");
        assert_eq!(iq.lang(), Some("is"));
        assert!(iq.is_ns(ns::CLIENT));
        assert!(!iq.is_ns(ns::SERVER));
    }
}
