//! PURE: requests of XEP-0016 and the rules in them, from XML and back.

use std::collections::HashSet;

use althing_proto::jid;
use althing_proto::ns;
use althing_proto::privacy::{Item, Kinds, MAX_NAME_BYTES, Subject};
use althing_proto::roster::Subscription;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::xml::build::ElementExt;
use althing_proto::xml::{Element, name};

/// What a get asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What lists there are.
    Names,
    /// One list.
    List(String),
}

/// What a set asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A list that applies to the session, or none.
    Active(Option<String>),
    /// A list that applies to the user, or none.
    Default(Option<String>),
    /// A list with these rules.
    List(String, Vec<Item>),
    /// No such list.
    NoList(String),
}

/// The stanza kinds that a rule may name.
const KINDS: [(&str, Kinds); 4] = [
    ("message", Kinds::MESSAGE),
    ("iq", Kinds::IQ),
    ("presence-in", Kinds::PRESENCE_IN),
    ("presence-out", Kinds::PRESENCE_OUT),
];

const SUBSCRIPTIONS: [(&str, Subscription); 4] = [
    ("none", Subscription::None),
    ("to", Subscription::To),
    ("from", Subscription::From),
    ("both", Subscription::Both),
];

fn bad(text: &str) -> StanzaError {
    StanzaError::new(StanzaCondition::BadRequest, text)
}

/// §2.3: nothing, or one list.
pub(super) fn asked(query: &Element) -> Result<Asked, StanzaError> {
    let mut children = query.children();
    match (children.next(), children.next()) {
        (None, _) => Ok(Asked::Names),
        (Some(list), None) if list.is("list", ns::PRIVACY) => Ok(Asked::List(named(list)?)),
        (Some(_), None) => Err(bad("a <list/> can be asked for")),
        (Some(_), Some(_)) => Err(bad("one list at a time")),
    }
}

/// §2.1: one child, no more.
pub(super) fn wanted(query: &Element) -> Result<Wanted, StanzaError> {
    let mut children = query.children();
    let (Some(child), None) = (children.next(), children.next()) else {
        return Err(bad("one of <active/>, <default/> and <list/>"));
    };
    if child.is("active", ns::PRIVACY) {
        return Ok(Wanted::Active(child.attr("name").map(str::to_owned)));
    }
    if child.is("default", ns::PRIVACY) {
        return Ok(Wanted::Default(child.attr("name").map(str::to_owned)));
    }
    if !child.is("list", ns::PRIVACY) {
        return Err(bad("one of <active/>, <default/> and <list/>"));
    }
    let name = named(child)?;
    let rules = child.children().map(rule).collect::<Result<Vec<Item>, StanzaError>>()?;
    if rules.is_empty() {
        // §2.8.
        return Ok(Wanted::NoList(name));
    }
    let mut places = HashSet::with_capacity(rules.len());
    if !rules.iter().all(|rule| places.insert(rule.order)) {
        return Err(bad("two items have the same 'order'"));
    }
    Ok(Wanted::List(name, rules))
}

fn named(list: &Element) -> Result<String, StanzaError> {
    match list.attr("name") {
        Some(name) if name.len() > MAX_NAME_BYTES => {
            Err(StanzaError::new(StanzaCondition::NotAcceptable, "the list's name is too long"))
        }
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(bad("a <list/> has no 'name'")),
    }
}

fn rule(item: &Element) -> Result<Item, StanzaError> {
    if !item.is("item", ns::PRIVACY) {
        return Err(bad("a list consists of <item/>s"));
    }
    let allow = match item.attr("action") {
        Some("allow") => true,
        Some("deny") => false,
        _ => return Err(bad("an item's 'action' is \"allow\" or \"deny\"")),
    };
    let order = item.attr("order").and_then(|order| order.trim().parse().ok());
    let order = order.ok_or_else(|| bad("an item's 'order' is a non-negative integer of 32 bits"))?;
    let value = item.attr("value").unwrap_or_default();
    let subject = match item.attr("type") {
        None => Subject::Any,
        Some("jid") => Subject::Jid(jid::parse(value).map_err(|_| {
            StanzaError::new(StanzaCondition::JidMalformed, "the 'value' of an item is not a JID")
        })?),
        Some("group") if value.is_empty() => return Err(bad("an item for a group does not name it")),
        Some("group") => Subject::Group(value.to_owned()),
        Some("subscription") => {
            let known = SUBSCRIPTIONS.iter().find(|(word, _)| *word == value);
            Subject::Subscription(known.ok_or_else(|| bad("there is no such subscription"))?.1)
        }
        Some(_) => return Err(bad("an item's 'type' is \"jid\", \"group\" or \"subscription\"")),
    };
    let mut kinds = Kinds::NONE;
    for child in item.children() {
        // A kind that is not known here must not make a rule for all kinds of one for a single one.
        let known = KINDS.iter().find(|(word, _)| child.is(*word, ns::PRIVACY));
        kinds = kinds.or(known.ok_or_else(|| bad("an item names a kind of stanza that there is not"))?.1);
    }
    // §2.13: without any, it is about all.
    let kinds = if kinds.is_empty() { Kinds::ALL } else { kinds };
    Ok(Item { order, subject, allow, kinds })
}

/// A rule as clients see it.
pub(super) fn item(rule: &Item) -> Element {
    let (type_, value) = match &rule.subject {
        Subject::Any => (None, None),
        Subject::Jid(jid) => (Some("jid"), Some(jid.as_str())),
        Subject::Group(group) => (Some("group"), Some(group.as_str())),
        Subject::Subscription(subscription) => {
            let known = SUBSCRIPTIONS.iter().find(|(_, known)| known == subscription);
            (Some("subscription"), known.map(|(word, _)| *word))
        }
    };
    let named = KINDS.iter().filter(|(_, kind)| rule.kinds != Kinds::ALL && rule.kinds.meets(*kind));
    let mut item = Element::builder("item", ns::PRIVACY)
        .append_all(named.map(|(word, _)| Element::bare(*word, ns::PRIVACY)))
        .build();
    for (attribute, value) in [(name!("type"), type_), (name!("value"), value)] {
        if let Some(value) = value {
            item.set(attribute, value);
        }
    }
    item.set(name!("action"), if rule.allow { "allow" } else { "deny" });
    item.set(name!("order"), rule.order.to_string());
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(inner: &str) -> Element {
        format!("<query xmlns='jabber:iq:privacy'>{inner}</query>").parse().unwrap()
    }

    fn set(inner: &str) -> Result<Wanted, StanzaCondition> {
        wanted(&query(inner)).map_err(|error| error.condition)
    }

    fn items(inner: &str) -> Result<Wanted, StanzaCondition> {
        set(&format!("<list name='l'>{inner}</list>"))
    }

    #[test]
    fn rules_come_back_as_they_were_written() {
        for xml in [
            "<item type='jid' value='tybalt@example.com' action='deny' order='3'/>",
            "<item type='group' value='Enemies' action='deny' order='4294967295'><message/></item>",
            "<item type='subscription' value='none' action='allow' order='0'><iq/><presence-in/></item>",
            "<item type='subscription' value='both' action='allow' order='1'><presence-out/></item>",
            "<item action='deny' order='666'/>",
            "<item action='deny' order='7'><message/><iq/><presence-in/><presence-out/></item>",
        ] {
            let Ok(Wanted::List(name, rules)) = items(xml) else { panic!("{xml}") };
            let back = query(&String::from(&item(&rules[0])));
            assert_eq!((name.as_str(), rules.len()), ("l", 1));
            let again = rule(back.children().next().unwrap());
            assert_eq!(again.as_ref(), Ok(&rules[0]), "{xml}");
            let written = String::from(&item(&rules[0]));
            assert_eq!(written.matches("/>").count(), xml.matches("/>").count(), "{written}");
        }
        // All four kinds are not all there is: subscriptions pass.
        let Ok(Wanted::List(_, rules)) =
            items("<item action='deny' order='7'><message/><iq/><presence-in/><presence-out/></item>")
        else {
            panic!()
        };
        assert!(rules[0].kinds != Kinds::ALL && !rules[0].kinds.meets(Kinds::OTHER));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        use StanzaCondition::{BadRequest, JidMalformed};
        for (xml, condition) in [
            ("<item order='1'/>", BadRequest),
            ("<item action='block' order='1'/>", BadRequest),
            ("<item action='deny'/>", BadRequest),
            ("<item action='deny' order='-1'/>", BadRequest),
            ("<item action='deny' order='4294967296'/>", BadRequest),
            ("<item action='deny' order='1'/><item action='allow' order='1'/>", BadRequest),
            ("<item action='deny' order='1' type='jid' value='@'/>", JidMalformed),
            ("<item action='deny' order='1' type='jid'/>", JidMalformed),
            ("<item action='deny' order='1' type='group'/>", BadRequest),
            ("<item action='deny' order='1' type='subscription' value='remove'/>", BadRequest),
            ("<item action='deny' order='1' type='moon'/>", BadRequest),
            ("<item action='deny' order='1'><presence/></item>", BadRequest),
            ("<rule action='deny' order='1'/>", BadRequest),
        ] {
            assert_eq!(items(xml), Err(condition), "{xml}");
        }
    }

    #[test]
    fn a_request_is_about_one_thing() {
        let own = |text: &str| text.to_owned();
        assert_eq!(set("<active name='a'/>"), Ok(Wanted::Active(Some(own("a")))));
        assert_eq!(set("<active/>"), Ok(Wanted::Active(None)));
        assert_eq!(set("<default name='a'/>"), Ok(Wanted::Default(Some(own("a")))));
        assert_eq!(set("<default/>"), Ok(Wanted::Default(None)));
        assert_eq!(set("<list name='a'/>"), Ok(Wanted::NoList(own("a"))));
        let long = format!("<list name='{}'/>", "x".repeat(MAX_NAME_BYTES + 1));
        for (xml, condition) in [
            ("", StanzaCondition::BadRequest),
            ("<list/>", StanzaCondition::BadRequest),
            ("<list name=''/>", StanzaCondition::BadRequest),
            ("<list name='a'/><list name='b'/>", StanzaCondition::BadRequest),
            ("<active/><default/>", StanzaCondition::BadRequest),
            ("<other/>", StanzaCondition::BadRequest),
            (&long, StanzaCondition::NotAcceptable),
        ] {
            assert_eq!(set(xml), Err(condition), "{xml}");
        }
        let get = |xml| asked(&query(xml)).map_err(|error| error.condition);
        assert_eq!(get(""), Ok(Asked::Names));
        assert_eq!(get("<list name='a'/>"), Ok(Asked::List(own("a"))));
        for xml in ["<list/>", "<list name='a'/><list name='b'/>", "<active/>"] {
            assert_eq!(get(xml), Err(StanzaCondition::BadRequest), "{xml}");
        }
    }
}
