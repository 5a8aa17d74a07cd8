//! XEP-0055: Jabber Search. Users of this server by the names in their vCards, if the operator wants it.
//!
//! The index is in the store, written in the same change as the vCard (`Directory`): each node finds the same, and
//! nothing is to be built at a start. One field is looked up there, within a bound; the others are compared.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use althing_cluster::wire;
use althing_proto::form::{Field, Form, FormKind};
use althing_proto::jid::{BareJid, Jid, NodePart, escaping};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::vcard;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::roster::storage_failed;
use super::{Feature, Module, Spec, cut};
use crate::auth::rate::RateLimit;
use crate::config::Search as Settings;
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, View};
use crate::session::effect::Effect;
use crate::storage::profile::Word;

/// The module.
pub(super) const MODULE: Search = Search;

const SPEC: Spec = Spec { name: "search", document: "XEP-0055", version: "1.3", title: "Jabber Search" };

/// Most entries of the directory that one search looks at.
const CANDIDATES: usize = 1_000;

/// Longest text of a field in the directory, in bytes.
const MAX_TEXT: usize = 200;

/// The fields: name, what people read, the number in the directory. A search looks up the first that it has.
const FIELDS: &[(&str, &str, u8)] = &[
    ("email", "Email Address", 5),
    ("user", "User", 1),
    ("nick", "Nickname", 4),
    ("last", "Family Name", 3),
    ("first", "Given Name", 2),
];

const INSTRUCTIONS: &str = "Fill in one or more fields to search for any matching users of this server. An asterisk at the \
                            end of a value finds everything that begins with it.";

pub(super) struct Search;

impl Module for Search {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::SEARCH, At::SERVER), Interest::iq_set(ns::SEARCH, At::SERVER)] }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let feature = Feature { var: ns::SEARCH, at: At::SERVER };
        view.node.config().search.enabled.then_some(feature).into_iter().collect()
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let (Some(from), Some(to)) = (packet.stanza.from(), packet.stanza.to()) else { return Outcome::Pass };
        if !view.node.config().search.enabled {
            return Outcome::Pass;
        }
        if !view.node.serves(from.domain().as_str()) {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let Some(query) = packet.stanza.payload().filter(|query| query.name() == "query") else {
            return Outcome::refuse(packet, StanzaCondition::BadRequest);
        };
        if packet.stanza.kind() == Kind::Iq(IqType::Get) {
            return Outcome::reply(packet.stanza.result(Some(fields())));
        }
        let wanted = match Wanted::read(query) {
            Ok(wanted) => wanted,
            Err(text) => return Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text)),
        };
        if !view.node.searches.admit(view.node, from) {
            let text = "too many searches: wait";
            return Outcome::refuse(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text));
        }
        find(packet, to.domain().as_str().to_owned(), wanted, view.node)
    }
}

/// Who may search how often.
pub struct Searches(Mutex<RateLimit<BareJid>>);

impl Searches {
    /// By the settings of `[search]`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Searches(Mutex::new(RateLimit::new(settings.burst, settings.per_hour)))
    }

    /// Other settings, for those who have searched before too.
    pub fn set(&self, settings: &Settings) {
        self.0.lock().set(settings.burst, settings.per_hour);
    }

    fn admit(&self, node: &NodeContext, who: &Jid) -> bool {
        self.0.lock().admit_as(who.to_bare(), node.now())
    }
}

/// §2.1: the fields, as the protocol has them and as a form.
fn fields() -> Element {
    let form = Form::ask("User search").instruct(INSTRUCTIONS).typed(ns::SEARCH);
    let form =
        FIELDS.iter().fold(form, |form, (name, label, _)| form.with(Field::text(*name).labelled(*label)));
    // `user` is in the form only: the schema has no such element.
    let plain = FIELDS.iter().filter(|(name, ..)| *name != "user");
    Element::builder("query", ns::SEARCH)
        .append(Element::builder("instructions", ns::SEARCH).append(INSTRUCTIONS))
        .append_all(plain.map(|(name, ..)| Element::bare(*name, ns::SEARCH)))
        .append(form.to_element())
        .build()
}

/// What somebody searches for.
struct Wanted {
    /// Field, and the text as the directory has it.
    values: Vec<(u8, String, Begins)>,
    /// Whether the answer is a form: the question was one.
    form: bool,
}

/// Whether what begins with the text is wanted too.
type Begins = bool;

impl Wanted {
    fn read(query: &Element) -> Result<Wanted, String> {
        let form = Form::find(query).map_err(|error| error.to_string())?;
        if form.as_ref().is_some_and(|form| form.kind != FormKind::Submit) {
            return Err("a form is submitted".to_owned());
        }
        let value = |name: &str| match &form {
            Some(form) => form.value(name).map(str::to_owned),
            None => query.get_child(name, ns::SEARCH).map(Element::text),
        };
        let mut values = Vec::new();
        for (name, _, number) in FIELDS {
            let text = value(name).unwrap_or_default();
            let (text, begins) = match text.trim().strip_suffix('*') {
                Some(start) => (start, true),
                None => (text.trim(), false),
            };
            let text = if *name == "user" { local_part(text) } else { comparable(text) };
            if !text.is_empty() {
                values.push((*number, text, begins));
            } else if begins {
                return Err(format!("{name}: an asterisk alone finds nobody"));
            }
        }
        if values.is_empty() {
            return Err("nothing is searched for".to_owned());
        }
        Ok(Wanted { values, form: form.is_some() })
    }
}

/// A local part as people write it, escaped (XEP-0106) and prepared; empty for what can be none.
fn local_part(text: &str) -> String {
    let prepared = |text: &str| NodePart::new(text).map(|local| local.as_str().to_owned()).ok();
    // Who writes it in its escaped form means the same.
    prepared(text).or_else(|| prepared(&escaping::escape(text))).unwrap_or_default()
}

/// A text as the directory compares it: case and spaces do not count, and it is not longer than a word may be.
fn comparable(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    cut(&out, MAX_TEXT).to_owned()
}

/// What the directory shows: given and family name, nickname, mail address. Fields never change: what must becomes
/// another type, told apart by its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shown {
    first: String,
    last: String,
    nick: String,
    email: String,
}

impl Shown {
    fn field(&self, number: u8) -> &str {
        match number {
            2 => &self.first,
            3 => &self.last,
            4 => &self.nick,
            5 => &self.email,
            _ => "",
        }
    }
}

/// How the directory lists the owner of a vCard: by which words, and what it shows. Nothing for one that is private.
pub(super) fn listing(owner: &BareJid, vcard: &Element) -> (Vec<Word>, Bytes) {
    let Some(names) = vcard::names(vcard) else { return (Vec::new(), Bytes::new()) };
    let kept = |text: &str| cut(text, MAX_TEXT).to_owned();
    let shown = Shown {
        first: kept(&names.given),
        last: kept(&names.family),
        nick: kept(&names.nick),
        email: kept(&names.email),
    };
    let local = owner.node().map_or("", |node| node.as_str());
    let texts = FIELDS.iter().map(|(_, _, number)| match number {
        1 => Word { field: 1, text: cut(local, MAX_TEXT).to_owned() },
        number => Word { field: *number, text: comparable(shown.field(*number)) },
    });
    let words = texts.filter(|word| !word.text.is_empty()).collect();
    // Four short texts always encode.
    (words, wire::encode(&shown).unwrap_or_default().into())
}

/// §2.1, §3: those that match in every field.
fn find(packet: &Packet, domain: String, wanted: Wanted, node: &Arc<NodeContext>) -> Outcome {
    let (storage, results, packet) = (node.storage.clone(), node.config().search.results, packet.clone());
    Outcome::aside(async move {
        let Some((field, text, begins)) = wanted.values.first().cloned() else { return Vec::new() };
        let found = storage.directory.find(&domain, &Word { field, text }, begins, CANDIDATES).await;
        match found {
            Ok(found) => {
                let entries = found.into_iter().filter_map(|(user, shown)| {
                    let shown: Shown = wire::decode(&shown).ok()?;
                    matches(&user, &shown, &wanted.values).then_some((user, shown))
                });
                let entries: Vec<_> = entries.take(results).collect();
                let query = if wanted.form { table(&entries) } else { items(&entries) };
                vec![Effect::Route(packet.stanza.result(Some(query)))]
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

fn matches(user: &BareJid, shown: &Shown, wanted: &[(u8, String, Begins)]) -> bool {
    wanted.iter().all(|(field, text, begins)| {
        let has = match field {
            1 => user.node().map_or_else(String::new, |node| cut(node.as_str(), MAX_TEXT).to_owned()),
            field => comparable(shown.field(*field)),
        };
        if *begins { has.starts_with(text) } else { has == *text }
    })
}

fn items(entries: &[(BareJid, Shown)]) -> Element {
    let items = entries.iter().map(|(user, shown)| {
        let texts = FIELDS.iter().filter(|(name, ..)| *name != "user");
        let texts = texts.map(|(name, _, number)| {
            Element::builder(*name, ns::SEARCH).append(shown.field(*number)).build()
        });
        Element::builder("item", ns::SEARCH).set(name!("jid"), user.as_str()).append_all(texts).build()
    });
    Element::builder("query", ns::SEARCH).append_all(items).build()
}

fn table(entries: &[(BareJid, Shown)]) -> Element {
    let form = Form::result().typed(ns::SEARCH).column(Field::jid("jid").labelled("Jabber ID"));
    let texts = || FIELDS.iter().filter(|(name, ..)| *name != "user");
    let form = texts().fold(form, |form, (name, label, _)| form.column(Field::text(*name).labelled(*label)));
    let form = entries.iter().fold(form, |form, (user, shown)| {
        let texts = texts().map(|(_, _, number)| shown.field(*number).to_owned());
        form.row([user.to_string()].into_iter().chain(texts))
    });
    Element::builder("query", ns::SEARCH).append(form.to_element()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcard(xml: &str) -> Element {
        format!("<vCard xmlns='vcard-temp'>{xml}</vCard>").parse().unwrap()
    }

    fn wanted(xml: &str) -> Result<Vec<(u8, String, Begins)>, String> {
        let query = format!("<query xmlns='jabber:iq:search'>{xml}</query>").parse().unwrap();
        Wanted::read(&query).map(|wanted| wanted.values)
    }

    #[test]
    fn a_search_has_a_text_and_fields_that_are_known() {
        assert!(wanted("").is_err());
        assert!(wanted("<last> </last>").is_err());
        assert!(wanted("<last>*</last>").is_err(), "all of a server in one answer");
        let both = wanted("<first>Ju*</first><last> CAPULET  of Verona </last>").unwrap();
        assert_eq!(both, [(3, "capulet of verona".to_owned(), false), (2, "ju".to_owned(), true)]);
        let form =
            "<x xmlns='jabber:x:data' type='submit'><field var='user'><value>D'Artagnan</value></field></x>";
        assert_eq!(wanted(form).unwrap(), [(1, "d\\27artagnan".to_owned(), false)]);
        assert!(wanted("<x xmlns='jabber:x:data' type='form'/>").is_err());
    }

    #[test]
    fn a_listing_is_found_by_each_of_its_words() {
        let owner = BareJid::new("juliet@capulet.lit").unwrap();
        let vcard = vcard("<N><FAMILY>Capulet</FAMILY><GIVEN>Ju  Li</GIVEN></N><NICKNAME>JuliC</NICKNAME>");
        let (words, shown) = listing(&owner, &vcard);
        let texts: Vec<_> = words.iter().map(|word| (word.field, word.text.as_str())).collect();
        assert_eq!(texts, [(1, "juliet"), (4, "julic"), (3, "capulet"), (2, "ju li")]);
        let shown: Shown = wire::decode(&shown).unwrap();
        assert_eq!((&*shown.first, &*shown.email), ("Ju  Li", ""));
        let matching =
            |field, text: &str, begins| matches(&owner, &shown, &[(field, text.to_owned(), begins)]);
        assert!(matching(2, "ju li", false) && matching(2, "ju", true) && matching(1, "jul", true));
        assert!(!matching(2, "ju", false) && !matching(3, "ju li", false));
    }

    #[test]
    fn who_wants_to_be_private_is_not_listed() {
        let owner = BareJid::new("juliet@capulet.lit").unwrap();
        let (words, shown) = listing(&owner, &vcard("<NICKNAME>J</NICKNAME><CLASS><PRIVATE/></CLASS>"));
        assert!(words.is_empty() && shown.is_empty());
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let owner = BareJid::new("juliet@capulet.lit").unwrap();
        let name = "\u{fc}".repeat(MAX_TEXT);
        let (words, shown) = listing(&owner, &vcard(&format!("<NICKNAME>{name}</NICKNAME>")));
        assert!(words.iter().all(|word| word.text.len() <= MAX_TEXT) && shown.len() < 5 * MAX_TEXT);
    }
}
