//! PURE: what service discovery tells of an entity (XEP-0030, XEP-0128), and the hashes that stand for it (XEP-0115,
//! XEP-0390).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use ring::digest;

use crate::form::{FORM_TYPE, Form};
use crate::jid::Jid;
use crate::ns;
use crate::xml::build::{BuilderExt, ElementExt};
use crate::xml::name;

/// What an entity is (XEP-0030 §3.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The category: `server`, `component`, `automation`.
    pub category: String,
    /// The type inside the category.
    pub kind: String,
    /// The language of the name.
    pub lang: Option<String>,
    /// A name for people.
    pub name: Option<String>,
}

impl Identity {
    /// An identity without a name.
    #[must_use]
    pub fn new(category: &str, kind: &str) -> Self {
        Identity { category: category.to_owned(), kind: kind.to_owned(), lang: None, name: None }
    }

    /// With a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// The answer to disco#info.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info {
    /// What it is.
    pub identities: Vec<Identity>,
    /// What it can do.
    pub features: BTreeSet<String>,
    /// Further information, each form with a `FORM_TYPE` (XEP-0128).
    pub forms: Vec<Form>,
}

impl Info {
    /// The element, about `node` of the entity or the entity itself.
    #[must_use]
    pub fn to_element(&self, node: Option<&str>) -> Element {
        let identities = self.identities.iter().map(|identity| {
            let mut builder = Element::builder("identity", ns::DISCO_INFO)
                .set(name!("category"), &identity.category)
                .set(name!("type"), &identity.kind);
            if let Some(text) = &identity.name {
                builder = builder.set(name!("name"), text);
            }
            let mut element = builder.build();
            if let Some(lang) = &identity.lang {
                element.set_lang(lang);
            }
            element
        });
        let features = self
            .features
            .iter()
            .map(|var| Element::builder("feature", ns::DISCO_INFO).set(name!("var"), var).build());
        let mut query = Element::builder("query", ns::DISCO_INFO);
        if let Some(node) = node {
            query = query.set(name!("node"), node);
        }
        query
            .append_all(identities)
            .append_all(features)
            .append_all(self.forms.iter().map(Form::to_element))
            .build()
    }

    /// The verification string of XEP-0115 §5.1, by SHA-1, as base64.
    #[must_use]
    pub fn verification(&self) -> String {
        encode(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.verified_text().as_bytes())
    }

    /// The capability hash of XEP-0390 §4, by SHA-256, as base64.
    #[must_use]
    pub fn capability_hash(&self) -> String {
        encode(&digest::SHA256, &self.hashed_bytes())
    }

    /// XEP-0115 §5.1: what is hashed. All sorting is by bytes.
    fn verified_text(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let identities = self
            .identities
            .iter()
            .map(|identity| (&identity.category, &identity.kind, text(&identity.lang), text(&identity.name)));
        let mut out = String::new();
        for (category, kind, lang, name) in sorted(identities) {
            out.push_str(&format!("{category}/{kind}/{lang}/{name}<"));
        }
        for feature in &self.features {
            out.push_str(feature);
            out.push('<');
        }
        for form in sorted_by_type(&self.forms) {
            let scope = form.form_type().unwrap_or_default();
            out.push_str(scope);
            out.push('<');
            for (var, values) in fields(form).filter(|(var, _)| *var != FORM_TYPE) {
                for part in std::iter::once(var).chain(values) {
                    out.push_str(part);
                    out.push('<');
                }
            }
        }
        out
    }

    /// XEP-0390 §4.1: what is hashed.
    fn hashed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(ended(self.features.iter().map(String::as_str)));
        out.push(0x1c);
        let identities = self.identities.iter().map(|identity| {
            let (lang, name) = (identity.lang.as_deref(), identity.name.as_deref());
            let parts = [&identity.category, &identity.kind, lang.unwrap_or(""), name.unwrap_or("")];
            joined(parts, Some(0x1e))
        });
        out.extend(sorted(identities).concat());
        out.push(0x1c);
        let forms = self.forms.iter().map(|form| {
            let fields = fields(form).map(|(var, values)| {
                let mut bytes = joined([var], None);
                bytes.extend(ended(values));
                bytes.push(0x1e);
                bytes
            });
            let mut bytes = sorted(fields).concat();
            bytes.push(0x1d);
            bytes
        });
        out.extend(sorted(forms).concat());
        out.push(0x1c);
        out
    }
}

/// An item of an entity (XEP-0030 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose it is.
    pub jid: Jid,
    /// Which node of that entity.
    pub node: Option<String>,
    /// A name for people.
    pub name: Option<String>,
}

impl Item {
    /// An entity.
    #[must_use]
    pub fn entity(jid: impl Into<Jid>, name: Option<&str>) -> Self {
        Item { jid: jid.into(), node: None, name: name.map(str::to_owned) }
    }

    /// A node of an entity.
    #[must_use]
    pub fn node(jid: impl Into<Jid>, node: &str, name: Option<&str>) -> Self {
        Item { node: Some(node.to_owned()), ..Item::entity(jid, name) }
    }

    /// The answer to disco#items with these items, about `node` of the entity or the entity itself.
    #[must_use]
    pub fn list(node: Option<&str>, items: &[Item]) -> Element {
        let items = items.iter().map(|item| {
            let mut builder = Element::builder("item", ns::DISCO_ITEMS).set(name!("jid"), item.jid.as_str());
            if let Some(node) = &item.node {
                builder = builder.set(name!("node"), node);
            }
            if let Some(text) = &item.name {
                builder = builder.set(name!("name"), text);
            }
            builder.build()
        });
        let mut query = Element::builder("query", ns::DISCO_ITEMS);
        if let Some(node) = node {
            query = query.set(name!("node"), node);
        }
        query.append_all(items).build()
    }
}

fn encode(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> String {
    STANDARD.encode(digest::digest(algorithm, bytes))
}

fn sorted<T: Ord>(things: impl Iterator<Item = T>) -> Vec<T> {
    let mut things: Vec<T> = things.collect();
    things.sort();
    things
}

fn sorted_by_type(forms: &[Form]) -> Vec<&Form> {
    let mut forms: Vec<&Form> = forms.iter().collect();
    forms.sort_by_key(|form| form.form_type().unwrap_or_default());
    forms
}

/// The fields of a form by name, each with its values in order.
fn fields(form: &Form) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let named = form.fields.iter().filter_map(|field| {
        let values = sorted(field.values.iter().map(String::as_str));
        Some((field.var.as_deref()?, values))
    });
    sorted(named).into_iter()
}

/// The parts in their order, each with its end, and perhaps an end of them all.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>, end: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(part.as_bytes());
        bytes.push(0x1f);
    }
    bytes.extend(end);
    bytes
}

/// The parts, each with its end, sorted as bytes.
fn ended<'a>(parts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    sorted(parts.into_iter().map(|part| joined([part], None))).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Field;

    fn features(vars: &[&str]) -> BTreeSet<String> {
        vars.iter().map(|var| (*var).to_owned()).collect()
    }

    /// XEP-0115 §5.2: its simple example.
    #[test]
    fn the_simple_example_of_xep_0115() {
        let info = Info {
            identities: vec![Identity::new("client", "pc").named("Exodus 0.9.1")],
            features: features(&[
                "http://jabber.org/protocol/muc",
                "http://jabber.org/protocol/disco#info",
                "http://jabber.org/protocol/disco#items",
                "http://jabber.org/protocol/caps",
            ]),
            forms: Vec::new(),
        };
        assert_eq!(info.verification(), "QgayPKawpkPSDYmwT/WM94uAlu0=");
    }

    /// XEP-0115 §5.3: its complex example, two languages and a form.
    #[test]
    fn the_complex_example_of_xep_0115() {
        let name = |lang: &str, name: &str| Identity {
            lang: Some(lang.to_owned()),
            ..Identity::new("client", "pc").named(name)
        };
        let form = Form::result()
            .typed("urn:xmpp:dataforms:softwareinfo")
            .with(Field::text("ip_version").value("ipv6").value("ipv4"))
            .with(Field::text("os_version").value("10.5.1"))
            .with(Field::text("os").value("Mac"))
            .with(Field::text("software").value("Psi"))
            .with(Field::text("software_version").value("0.11"));
        let info = Info {
            identities: vec![name("en", "Psi 0.11"), name("el", "Ψ 0.11")],
            features: features(&[
                "http://jabber.org/protocol/caps",
                "http://jabber.org/protocol/disco#info",
                "http://jabber.org/protocol/disco#items",
                "http://jabber.org/protocol/muc",
            ]),
            forms: vec![form],
        };
        assert_eq!(info.verification(), "q07IKJEyjvHSyhy//CH0CxmKi8w=");
    }

    /// XEP-0390 §4.5.1: its simple example.
    #[test]
    fn the_simple_example_of_xep_0390() {
        let info = Info {
            identities: vec![Identity::new("client", "mobile").named("BombusMod")],
            features: features(&[
                "http://jabber.org/protocol/si",
                "http://jabber.org/protocol/bytestreams",
                "http://jabber.org/protocol/chatstates",
                "http://jabber.org/protocol/disco#info",
                "http://jabber.org/protocol/disco#items",
                "urn:xmpp:ping",
                "jabber:iq:time",
                "jabber:iq:privacy",
                "jabber:iq:version",
                "http://jabber.org/protocol/rosterx",
                "urn:xmpp:time",
                "jabber:x:oob",
                "http://jabber.org/protocol/ibb",
                "http://jabber.org/protocol/si/profile/file-transfer",
                "urn:xmpp:receipts",
                "jabber:iq:roster",
                "jabber:iq:last",
            ]),
            forms: Vec::new(),
        };
        assert_eq!(info.capability_hash(), "kzBZbkqJ3ADrj7v08reD1qcWUwNGHaidNUgD7nHpiw8=");
    }

    /// XEP-0390 §4.5.2: its complex example, two languages and a form.
    #[test]
    fn the_complex_example_of_xep_0390() {
        const VARS: &str = "games:board http://jabber.org/protocol/activity http://jabber.org/protocol/activity+notify \
             http://jabber.org/protocol/bytestreams http://jabber.org/protocol/chatstates \
             http://jabber.org/protocol/commands http://jabber.org/protocol/disco#info \
             http://jabber.org/protocol/disco#items http://jabber.org/protocol/evil \
             http://jabber.org/protocol/feature-neg http://jabber.org/protocol/geoloc \
             http://jabber.org/protocol/geoloc+notify http://jabber.org/protocol/ibb \
             http://jabber.org/protocol/iqibb http://jabber.org/protocol/mood \
             http://jabber.org/protocol/mood+notify http://jabber.org/protocol/rosterx \
             http://jabber.org/protocol/si http://jabber.org/protocol/si/profile/file-transfer \
             http://jabber.org/protocol/tune http://www.facebook.com/xmpp/messages \
             http://www.xmpp.org/extensions/xep-0084.html#ns-metadata+notify jabber:iq:avatar \
             jabber:iq:browse jabber:iq:dtcp jabber:iq:filexfer jabber:iq:ibb jabber:iq:inband \
             jabber:iq:jidlink jabber:iq:last jabber:iq:oob jabber:iq:privacy jabber:iq:roster \
             jabber:iq:time jabber:iq:version jabber:x:data jabber:x:event jabber:x:oob \
             urn:xmpp:avatar:metadata+notify urn:xmpp:ping urn:xmpp:receipts urn:xmpp:time";
        let name = |lang: &str, name: &str| Identity {
            lang: Some(lang.to_owned()),
            ..Identity::new("client", "pc").named(name)
        };
        let form = Form::result()
            .typed("urn:xmpp:dataforms:softwareinfo")
            .with(Field::text("software").value("Tkabber"))
            .with(Field::text("software_version").value("0.11.1-svn-20111216-mod (Tcl/Tk 8.6b2)"))
            .with(Field::text("os").value("Windows"))
            .with(Field::text("os_version").value("XP"));
        let info = Info {
            identities: vec![name("ru", "Ткаббер"), name("en", "Tkabber")],
            features: VARS.split(' ').map(str::to_owned).collect(),
            forms: vec![form],
        };
        assert_eq!(info.capability_hash(), "u79ZroNJbdSWhdSp311mddz44oHHPsEBntQ5b1jqBSY=");
    }
}
