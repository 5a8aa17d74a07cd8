//! PURE: what a client asks for.

use althing_proto::rsm::PageRequest;
use althing_proto::stanza::{IqType, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

use super::OFFLINE;
use crate::delivery::inbox::Place;

/// Most messages of one request.
const MAX_ITEMS: usize = 250;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// These (§2.4).
    View(Vec<Place>),
    /// That these go (§2.5).
    Remove(Vec<Place>),
    /// All (§2.6).
    Fetch,
    /// That all go (§2.7).
    Purge,
}

impl Asked {
    /// Reads the `<offline/>` of an IQ.
    pub(super) fn read(kind: IqType, payload: &Element) -> Result<Self, StanzaError> {
        let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
        if payload.name() != "offline" {
            return Err(bad("no <offline/>"));
        }
        let has = |name| payload.has_child(name, OFFLINE);
        let items: Vec<&Element> = payload.children().filter(|child| child.is("item", OFFLINE)).collect();
        match (kind, items.is_empty()) {
            (IqType::Get, true) if has("fetch") && !has("purge") => return Ok(Asked::Fetch),
            (IqType::Set, true) if has("purge") && !has("fetch") => return Ok(Asked::Purge),
            (_, true) => return Err(bad("neither items nor <fetch/> in a get nor <purge/> in a set")),
            (_, false) => {}
        }
        let action = if kind == IqType::Get { "view" } else { "remove" };
        if items.iter().any(|item| item.attr("action") != Some(action)) {
            return Err(bad("a get is for items to view, a set for items to remove"));
        }
        if items.len() > MAX_ITEMS {
            let text = format!("more than {MAX_ITEMS} items in one request");
            return Err(StanzaError::new(StanzaCondition::NotAcceptable, text));
        }
        let place = |item: &&Element| item.attr("node").and_then(|node| node.parse().ok());
        let places: Option<Vec<Place>> = items.iter().map(place).collect();
        let places =
            places.ok_or_else(|| StanzaError::new(StanzaCondition::ItemNotFound, "no such message waits"))?;
        Ok(if kind == IqType::Get { Asked::View(places) } else { Asked::Remove(places) })
    }
}

/// Which headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// Those behind that number.
    pub(super) after: Option<u64>,
    /// At most so many.
    pub(super) max: usize,
    /// Whether the client knows of pages (XEP-0059).
    pub(super) paged: bool,
}

impl Headers {
    /// Reads the `<query/>` of service discovery.
    pub(super) fn read(query: &Element) -> Result<Self, StanzaError> {
        let page = PageRequest::find(query)
            .map_err(|error| StanzaError::new(StanzaCondition::BadRequest, error.to_string()))?;
        if page.before.is_some() || page.index.is_some() {
            let text = "pages go forwards only";
            return Err(StanzaError::new(StanzaCondition::FeatureNotImplemented, text));
        }
        let unknown = |_| StanzaError::new(StanzaCondition::ItemNotFound, "no place of this list");
        let after = page.after.as_deref().map(str::parse::<Place>).transpose().map_err(unknown)?;
        let paged = page != PageRequest::default();
        let max = page.max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        Ok(Headers { after: after.map(|place| place.seq), max, paged })
    }
}

#[cfg(test)]
mod tests {
    use althing_proto::stanza_id::StanzaId;

    use super::*;

    fn read(kind: IqType, content: &str) -> Result<Asked, StanzaCondition> {
        let xml = format!("<offline xmlns='{OFFLINE}'>{content}</offline>");
        Asked::read(kind, &xml.parse().unwrap()).map_err(|error| error.condition)
    }

    #[test]
    fn a_request_views_or_removes_some_or_all() {
        let places = [1, 2].map(|seq| Place { seq, id: StanzaId::from_bytes([7; 16]) });
        let items = |action: &str| {
            let item = |place: &Place| format!("<item action='{action}' node='{place}'/>");
            places.iter().map(item).collect::<String>()
        };
        assert_eq!(read(IqType::Get, &items("view")), Ok(Asked::View(places.into())));
        assert_eq!(read(IqType::Set, &items("remove")), Ok(Asked::Remove(places.into())));
        assert_eq!(read(IqType::Get, "<fetch/>"), Ok(Asked::Fetch));
        assert_eq!(read(IqType::Set, "<purge/>"), Ok(Asked::Purge));
        let bad = Err(StanzaCondition::BadRequest);
        for (kind, content) in [
            (IqType::Get, ""),
            (IqType::Set, "<fetch/>"),
            (IqType::Get, "<purge/>"),
            (IqType::Get, "<fetch/><purge/>"),
            (IqType::Set, &items("view")),
            (IqType::Get, &items("remove")),
            (IqType::Get, &(items("view") + "<item node='x'/>")),
        ] {
            assert_eq!(read(kind, content), bad, "{content}");
        }
        let unknown = Err(StanzaCondition::ItemNotFound);
        for content in ["<item action='view' node='2003-02-27T22:52:37.225Z'/>", "<item action='view'/>"] {
            assert_eq!(read(IqType::Get, content), unknown, "{content}");
        }
        let many = items("view").repeat(MAX_ITEMS / 2) + &items("view");
        assert_eq!(read(IqType::Get, &many), Err(StanzaCondition::NotAcceptable));
    }

    #[test]
    fn headers_are_paged_forwards() {
        let read = |set: &str| {
            let xml =
                format!("<query xmlns='q:x'><set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query>");
            Headers::read(&xml.parse().unwrap()).map_err(|error| error.condition)
        };
        let place = Place { seq: 5, id: StanzaId::from_bytes([7; 16]) };
        let page = read(&format!("<max>3</max><after>{place}</after>"));
        assert_eq!(page, Ok(Headers { after: Some(5), max: 3, paged: true }));
        assert_eq!(read(""), Ok(Headers { after: None, max: usize::MAX, paged: false }));
        assert_eq!(read("<before/>"), Err(StanzaCondition::FeatureNotImplemented));
        assert_eq!(read("<after>x</after>"), Err(StanzaCondition::ItemNotFound));
        assert_eq!(read("<max>x</max>"), Err(StanzaCondition::BadRequest));
    }
}
