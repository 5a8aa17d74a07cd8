//! PURE: result set management (XEP-0059): which page of a long list is asked for, and what is told of it.

use minidom::Element;

use crate::ns;
use crate::xml::build::BuilderExt;
use crate::xml::name;

/// What a request says of the page that it wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// Most items; 0 asks for their number only (§2.7).
    pub max: Option<u32>,
    /// The page behind this item (§2.2).
    pub after: Option<String>,
    /// The page before this item (§2.3); with an empty text the last page (§2.5).
    pub before: Option<String>,
    /// The page that begins with the item of that number (§2.6).
    pub index: Option<u32>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("<max/> and <index/> are numbers")]
pub struct MalformedPage;

impl PageRequest {
    /// Reads the `<set/>` among the children of `query`; without one nothing is asked for.
    ///
    /// # Errors
    /// [`MalformedPage`].
    pub fn find(query: &Element) -> Result<Self, MalformedPage> {
        let Some(set) = query.get_child("set", ns::RSM) else { return Ok(PageRequest::default()) };
        let text = |name| set.get_child(name, ns::RSM).map(Element::text);
        let number = |name| match text(name) {
            Some(text) => text.trim().parse().map(Some).map_err(|_| MalformedPage),
            None => Ok(None),
        };
        Ok(PageRequest {
            max: number("max")?,
            after: text("after").filter(|after| !after.is_empty()),
            before: text("before"),
            index: number("index")?,
        })
    }
}

/// What is told of a page: its first and last item, of a page that has some, and how many there are in all, if that is
/// known.
#[must_use]
pub fn page(ends: Option<(&str, &str)>, count: Option<u64>) -> Element {
    let child = |name: &str, text: &str| Element::builder(name, ns::RSM).append(text).build();
    let mut set = Element::builder("set", ns::RSM);
    if let Some((first, last)) = ends {
        set = set.append(child("first", first)).append(child("last", last));
    }
    set.append_all(count.map(|count| child("count", &count.to_string()))).build()
}

/// An empty field of a form whose values are open to whoever fills it out (XEP-0122 §3.2.2): `<validate/>`.
#[must_use]
pub fn open_list() -> Element {
    Element::builder("validate", ns::FORM_VALIDATION)
        .set(name!("datatype"), "xs:string")
        .append(Element::bare("open", ns::FORM_VALIDATION))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(set: &str) -> Result<PageRequest, MalformedPage> {
        let xml = format!("<query xmlns='urn:x'>{set}</query>");
        PageRequest::find(&xml.parse().unwrap())
    }

    #[test]
    fn a_request_says_how_much_from_where() {
        let set =
            |content: &str| found(&format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>"));
        let none = PageRequest::default();
        assert_eq!(found(""), Ok(none.clone()));
        assert_eq!(set(""), Ok(none.clone()));
        assert_eq!(set("<max>0</max>"), Ok(PageRequest { max: Some(0), ..none.clone() }));
        assert_eq!(
            set("<max>5</max><after>x</after>"),
            Ok(PageRequest { max: Some(5), after: Some("x".to_owned()), ..none.clone() })
        );
        assert_eq!(set("<before/>"), Ok(PageRequest { before: Some(String::new()), ..none.clone() }));
        assert_eq!(set("<index>7</index>"), Ok(PageRequest { index: Some(7), ..none }));
        for bad in ["<max>-1</max>", "<max>many</max>", "<max/>", "<index>x</index>"] {
            assert_eq!(set(bad), Err(MalformedPage), "{bad}");
        }
    }

    #[test]
    fn a_page_tells_its_ends_and_the_count() {
        let xml = |ends, count| String::from(&page(ends, count));
        assert_eq!(
            xml(Some(("a", "b")), Some(3)),
            "<set xmlns='http://jabber.org/protocol/rsm'><first>a</first><last>b</last><count>3</count></set>"
        );
        assert_eq!(xml(None, None), "<set xmlns='http://jabber.org/protocol/rsm'/>");
    }
}
