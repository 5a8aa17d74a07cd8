//! PURE: what a query asks for (§4.1, §4.3), and the form that says what it may ask.

use althing_proto::form::{Field, FieldKind, Form, FormError, FormKind};
use althing_proto::jid;
use althing_proto::ns;
use althing_proto::rsm::{self, PageRequest};
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use althing_proto::xml::Element;

use crate::storage::messages::ArchiveQuery;

/// Most messages of a page: as many as are sent where nothing is said, and where more are asked for.
pub(super) const PAGE: u32 = 250;

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// By what its results are told from those of others.
    pub(super) id: Option<String>,
    /// Which messages.
    pub(super) archive: ArchiveQuery,
    /// Whether the last one is to come first (§4.3.5).
    pub(super) flipped: bool,
}

impl Query {
    /// Reads the `<query/>` of a request.
    pub(super) fn read(query: &Element) -> Result<Self, StanzaError> {
        let bad = |text: String| StanzaError::new(StanzaCondition::BadRequest, text);
        let mut archive = ArchiveQuery::default();
        if let Some(form) = Form::find(query).map_err(|error: FormError| bad(error.to_string()))? {
            if form.kind != FormKind::Submit || form.form_type() != Some(ns::MAM) {
                return Err(bad(format!("the form is no submitted one of {}", ns::MAM)));
            }
            filter(&form, &mut archive)?;
        }
        let page = PageRequest::find(query).map_err(|error| bad(error.to_string()))?;
        if page.index.is_some() {
            // XEP-0059 §2.6.
            let text = "pages are not numbered";
            return Err(StanzaError::new(StanzaCondition::FeatureNotImplemented, text));
        }
        archive.after.extend(page.after.as_deref().map(id).transpose()?);
        archive.backwards = page.before.is_some();
        archive.before.extend(page.before.as_deref().filter(|id| !id.is_empty()).map(id).transpose()?);
        archive.limit = page.max.map_or(PAGE, |max| max.min(PAGE));
        Ok(Query {
            id: query.attr("queryid").map(str::to_owned),
            archive,
            flipped: query.get_child("flip-page", ns::MAM).is_some(),
        })
    }
}

fn id(text: &str) -> Result<StanzaId, StanzaError> {
    let unknown = |_| StanzaError::new(StanzaCondition::ItemNotFound, "no such id is in the archive");
    text.parse().map_err(unknown)
}

/// §4.1: all fields are optional; one that is not known is refused (§4.1.5).
fn filter(form: &Form, archive: &mut ArchiveQuery) -> Result<(), StanzaError> {
    let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
    let time = |text: &str| Timestamp::from_xep0082(text).ok_or_else(|| bad("a time is not as in XEP-0082"));
    for field in &form.fields {
        let Some(var) = field.var.as_deref() else { continue };
        let mut values = field.values.iter().map(String::as_str);
        // A field without a value is one that was not filled out.
        let value = if matches!(var, "FORM_TYPE" | "ids") {
            None
        } else {
            values.next().filter(|text| !text.is_empty())
        };
        match (var, value) {
            ("FORM_TYPE", _) => {}
            ("ids", _) => archive.ids = values.map(id).collect::<Result<_, _>>()?,
            ("with", Some(with)) => {
                archive.with = Some(jid::parse(with).map_err(|_| bad("'with' is no address"))?)
            }
            ("start", Some(start)) => archive.start = Some(time(start)?),
            ("end", Some(end)) => archive.end = Some(time(end)?),
            ("after-id", Some(after)) => archive.after.push(id(after)?),
            ("before-id", Some(before)) => archive.before.push(id(before)?),
            ("include-groupchat", Some("true" | "false" | "1" | "0")) => {}
            ("include-groupchat", Some(_)) => return Err(bad("'include-groupchat' is true or false")),
            ("with" | "start" | "end" | "after-id" | "before-id" | "include-groupchat", None) => {}
            _ => {
                let text = format!("the field {var:?} is not known");
                return Err(StanzaError::new(StanzaCondition::FeatureNotImplemented, text));
            }
        }
    }
    Ok(())
}

/// §4.1.5: what a query may ask.
pub(super) fn form() -> Element {
    let line = |var| Field::text(var);
    let form = Form::new(FormKind::Form)
        .typed(ns::MAM)
        .with(Field::jid("with"))
        .with(line("start"))
        .with(line("end"))
        .with(line("before-id"))
        .with(line("after-id"))
        .with(Field::new(FieldKind::ListMulti, "ids"))
        .with(Field::new(FieldKind::Boolean, "include-groupchat"));
    let mut form = form.to_element();
    for field in form.children_mut().filter(|field| field.attr("var") == Some("ids")) {
        field.append_child(rsm::open_list());
    }
    Element::builder("query", ns::MAM).append(form).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "000102030405060708090a0b0c0d0e0f";

    fn read(content: &str) -> Result<Query, StanzaCondition> {
        let xml = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{content}</query>");
        Query::read(&xml.parse().unwrap()).map_err(|error| error.condition)
    }

    fn fields(fields: &[(&str, &[&str])]) -> String {
        let field = |(var, values): &(&str, &[&str])| {
            let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
            format!("<field var='{var}'>{values}</field>")
        };
        let fields: String =
            [("FORM_TYPE", &["urn:xmpp:mam:2"][..])].iter().chain(fields).map(field).collect();
        format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>")
    }

    fn set(content: &str) -> String {
        format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>")
    }

    #[test]
    fn a_query_is_read_with_all_its_fields() {
        let whole = read("").unwrap();
        assert_eq!(whole.id.as_deref(), Some("q"));
        assert_eq!(whole.archive, ArchiveQuery { limit: PAGE, ..ArchiveQuery::default() });
        assert!(!whole.flipped);

        let form = fields(&[
            ("with", &["a@b"]),
            ("start", &["1970-01-01T00:00:01Z"]),
            ("end", &["1970-01-01T01:00:02+01:00"]),
            ("after-id", &[ID]),
            ("before-id", &[ID]),
            ("ids", &[ID, ID]),
            ("include-groupchat", &["false"]),
        ]);
        let other = "ffffffffffffffffffffffffffffffff";
        let found =
            read(&format!("{form}{}<flip-page/>", set(&format!("<max>7</max><after>{other}</after>"))));
        let found = found.unwrap();
        assert!(found.flipped);
        let (id, other) = (ID.parse().unwrap(), other.parse().unwrap());
        let expected = ArchiveQuery {
            with: Some(jid::parse("a@b").unwrap()),
            start: Some(Timestamp::from_millis(1_000)),
            end: Some(Timestamp::from_millis(2_000)),
            after: vec![id, other],
            before: vec![id],
            ids: vec![id, id],
            limit: 7,
            backwards: false,
            name: None,
        };
        assert_eq!(found.archive, expected);
    }

    #[test]
    fn the_last_page_is_asked_for_by_an_empty_before_and_a_page_has_a_bound() {
        let last = read(&set("<max>100000</max><before/>")).unwrap().archive;
        assert_eq!((last.backwards, last.before.len(), last.limit), (true, 0, PAGE));
        let before = read(&set(&format!("<before>{ID}</before>"))).unwrap().archive;
        assert_eq!((before.backwards, before.before.len()), (true, 1));
        assert_eq!(read(&set("<max>0</max>")).unwrap().archive.limit, 0);
        let form = read(&fields(&[("before-id", &[ID])])).unwrap().archive;
        assert!(!form.backwards, "the field only filters");
        assert!(read(&fields(&[("with", &[]), ("start", &[""])])).is_ok(), "not filled out");
    }

    #[test]
    fn what_is_wrong_is_told() {
        use StanzaCondition::{BadRequest, FeatureNotImplemented, ItemNotFound};
        for (content, condition) in [
            (fields(&[("start", &["yesterday"])]), BadRequest),
            (fields(&[("with", &["@"])]), BadRequest),
            (fields(&[("include-groupchat", &["perhaps"])]), BadRequest),
            (fields(&[("{urn:x}text", &["x"])]), FeatureNotImplemented),
            (fields(&[("after-id", &["28482-98726-73623"])]), ItemNotFound),
            (fields(&[("ids", &[ID, "x"])]), ItemNotFound),
            (set("<after>x</after>"), ItemNotFound),
            (set("<before>x</before>"), ItemNotFound),
            (set("<max>x</max>"), BadRequest),
            (set("<index>3</index>"), FeatureNotImplemented),
            ("<x xmlns='jabber:x:data' type='submit'/>".to_owned(), BadRequest),
            (fields(&[]).replace("submit", "form"), BadRequest),
        ] {
            assert_eq!(read(&content), Err(condition), "{content}");
        }
    }

    #[test]
    fn the_form_has_all_fields_and_the_list_is_open() {
        let xml = String::from(&form());
        for var in ["with", "start", "end", "before-id", "after-id", "ids", "include-groupchat"] {
            assert!(
                xml.contains(&format!("var='{var}'")) || xml.contains(&format!("var=\"{var}\"")),
                "{xml}"
            );
        }
        assert!(xml.contains("<open/>") && !xml.contains("required"), "{xml}");
    }
}
