//! XEP-0033: Extended Stanza Addressing. A message or presence to the domain goes to all whom it addresses.
//!
//! Who may: users of this server, to anybody; others only to users of this server, so that nobody else's stanzas are
//! relayed (§2.2). Every address of a copy is marked as delivered, so that no copy is ever multiplied again (§4.5).

use std::collections::HashSet;

use althing_proto::jid::{self, Jid};
use althing_proto::ns;
use althing_proto::stanza::{
    Broadcast, Kind, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError,
};
use althing_proto::xml::build::ElementExt;
use althing_proto::xml::{Element, name};

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Pass, Verdict, View, stage};
use crate::session::effect::{Effect, SessionChange};

/// The module.
pub(super) const MODULE: Multicast = Multicast;

const SPEC: Spec = Spec {
    name: "multicast",
    document: "XEP-0033",
    version: "1.2.1",
    title: "Extended Stanza Addressing, by the server itself",
};

/// Most addresses in a stanza of somebody who is no user of this server (§9 asks for more than 20).
const STRANGERS: usize = 21;

pub(super) struct Multicast;

impl Module for Multicast {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            &[
                Interest::message(At::SERVER),
                Interest::presence(At::SERVER),
                Interest::iq_get(ns::ADDRESS, At::SERVER),
                Interest::iq_set(ns::ADDRESS, At::SERVER),
            ]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::ADDRESS, at: At::SERVER }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let stanza = &packet.stanza;
        match stanza.kind() {
            // R10: an older server multiplied IQs too. §3: they never have addresses, and one request has one answer.
            Kind::Iq(_) => {
                return refuse(packet, StanzaCondition::BadRequest, "an iq has no addresses");
            }
            Kind::Message(MessageType::Error) => return Outcome::Pass,
            Kind::Message(_) | Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => {}
            Kind::Presence(_) => return Outcome::Pass,
        }
        let Some(addresses) = stanza.element().get_child("addresses", ns::ADDRESS) else {
            return Outcome::Pass;
        };
        // §3: addressed to the service, with no resource.
        if stanza.to().is_none_or(|to| to.resource().is_some()) {
            return Outcome::Pass;
        }
        let local = stanza.from().is_some_and(|from| from.node().is_some() && is_here(from, view));
        let most = view.node.config().limits.multicast_addresses;
        let most = if local { most } else { most.min(STRANGERS) };
        match targets(addresses, most) {
            // All were delivered by others: nothing is left to do here.
            Ok(targets) if targets.is_empty() => Outcome::Done(Vec::new()),
            Ok(targets) if !local && !targets.iter().all(|target| is_here(&target.jid, view)) => {
                refuse(packet, StanzaCondition::Forbidden, "only users of this server may address others")
            }
            Ok(targets) => deliver(packet, targets, view),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

fn refuse(packet: &Packet, condition: StanzaCondition, text: &str) -> Outcome {
    Outcome::refuse(packet, StanzaError::new(condition, text))
}

fn is_here(jid: &Jid, view: &View<'_>) -> bool {
    view.node.serves(jid.domain().as_str())
}

/// Somebody who is to get a copy.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    jid: Jid,
    /// The address as it was written, where nobody else may see it.
    blind: Option<Element>,
}

/// Who is to get a copy, each once. Whoever is named openly and blindly is named openly.
fn targets(addresses: &Element, most: usize) -> Result<Vec<Target>, StanzaError> {
    let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
    let (mut open, mut blind) = (Vec::new(), Vec::new());
    let all = addresses.children().filter(|child| child.is("address", ns::ADDRESS));
    for (count, address) in all.enumerate() {
        if count >= most {
            let text = format!("more than {most} addresses");
            return Err(StanzaError::new(StanzaCondition::NotAcceptable, text));
        }
        let kind = address.attr("type").ok_or_else(|| bad("an address has a type"))?;
        let jid = address.attr("jid");
        match (jid, address.attr("uri")) {
            (Some(_), Some(_)) => return Err(bad("an address has a jid or a uri, not both")),
            // §4.2: optional, and understood by none of our ways.
            (None, Some(_)) => {
                return Err(StanzaError::new(StanzaCondition::JidMalformed, "no uri is understood"));
            }
            _ => {}
        }
        let jid = jid
            .map(jid::parse)
            .transpose()
            .map_err(|_| StanzaError::new(StanzaCondition::JidMalformed, "the jid of an address is none"))?;
        let list = match kind {
            "to" | "cc" => &mut open,
            "bcc" => &mut blind,
            // Where to reply, and whatever else there may be: for the reader.
            _ => continue,
        };
        let jid = jid.ok_or_else(|| bad("an address to deliver to has a jid"))?;
        if address.attr("delivered") != Some("true") {
            list.push((jid, address));
        }
    }
    let mut seen = HashSet::new();
    let open = open.into_iter().map(|(jid, _)| (jid, None));
    let blind = blind.into_iter().map(|(jid, address)| (jid, Some(delivered(address))));
    let each = open.chain(blind).filter(|(jid, _)| seen.insert(jid.clone()));
    Ok(each.map(|(jid, blind)| Target { jid, blind }).collect())
}

/// The address, marked as delivered (§4.5).
fn delivered(address: &Element) -> Element {
    let mut address = address.clone();
    address.set(name!("delivered"), "true");
    address
}

/// The stanza for those who are named openly: all addresses marked, the blind ones gone; and for a blind one, with its
/// own address.
fn rewritten(stanza: &Stanza, blind: Option<&Element>) -> Stanza {
    let mut element = Element::bare(stanza.kind().element_name(), ns::CLIENT);
    let original = stanza.element();
    for ((space, attribute), value) in original.attrs() {
        element.attrs_mut().insert(space.clone(), attribute.clone(), value.clone());
    }
    for node in original.nodes() {
        match node.as_element().filter(|child| child.is("addresses", ns::ADDRESS)) {
            Some(addresses) => {
                let shown = addresses.children().filter(|address| address.attr("type") != Some("bcc"));
                let shown = shown.map(|address| match address.attr("type") {
                    Some("to" | "cc") => delivered(address),
                    _ => address.clone(),
                });
                let list: Vec<Element> = shown.chain(blind.cloned()).collect();
                // Without any the element would break its schema, and tell that somebody was there.
                if !list.is_empty() {
                    element.append_child(Element::builder("addresses", ns::ADDRESS).append_all(list).build());
                }
            }
            None => element.append_node(node.clone()),
        }
    }
    Stanza::from_parts(stanza.kind(), stanza.from().cloned(), None, element)
}

fn deliver(packet: &Packet, targets: Vec<Target>, view: &View<'_>) -> Outcome {
    let stanza = &packet.stanza;
    let mut effects = Effects::with_capacity(targets.len());
    if let Kind::Presence(presence) = stanza.kind() {
        // §5.1: whoever is told that the sender is available is told when it is no more, as of all directed presence.
        let available = presence == PresenceType::Available;
        let all = || targets.iter().map(|target| &target.jid);
        if available && !view.session.is_some_and(|session| session.may_direct_to(all())) {
            return refuse(
                packet,
                StanzaCondition::ResourceConstraint,
                "too many have got directed presence",
            );
        }
        let changes = targets.iter().map(|target| target.jid.clone());
        effects.extend(changes.map(|jid| {
            let change =
                if available { SessionChange::Directed(jid) } else { SessionChange::Undirected(jid) };
            Effect::Session(change)
        }));
    }
    let open = Broadcast::new(rewritten(stanza, None));
    for target in targets {
        let copy = match &target.blind {
            None => open.copy_for(target.jid),
            Some(blind) => rewritten(stanza, Some(blind)).with_to(target.jid),
        };
        // May its sender send it there? The stanza itself, which was asked about, went to the server.
        let copy = Packet::new(copy, Pass::Outbound);
        match view.session.map(|_| stage::preprocess(&view.node.modules, &copy, view)) {
            Some(Verdict::Block(refusal)) => effects.extend(refusal),
            _ => effects.push(Effect::Route(copy.stanza)),
        }
    }
    Outcome::Done(effects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(inside: &str) -> Element {
        format!("<addresses xmlns='http://jabber.org/protocol/address'>{inside}</addresses>").parse().unwrap()
    }

    fn condition(inside: &str) -> StanzaCondition {
        targets(&addresses(inside), 3).unwrap_err().condition
    }

    #[test]
    fn addresses_are_checked() {
        for (inside, expected) in [
            ("<address jid='a@b'/>", StanzaCondition::BadRequest),
            ("<address type='to' jid='a@b' uri='sip:a@b'/>", StanzaCondition::BadRequest),
            ("<address type='to' node='x'/>", StanzaCondition::BadRequest),
            ("<address type='to' uri='sip:a@b'/>", StanzaCondition::JidMalformed),
            ("<address type='replyto' jid='@'/>", StanzaCondition::JidMalformed),
            (&"<address type='noreply'/>".repeat(4), StanzaCondition::NotAcceptable),
        ] {
            assert_eq!(condition(inside), expected, "{inside}");
        }
    }

    #[test]
    fn each_gets_one_copy_and_none_what_it_has() {
        let list = addresses(
            "<address type='bcc' jid='a@b'/><address type='to' jid='A@b'/><address type='cc' jid='c@b' \
             delivered='true'/><address type='bcc' jid='d@b'/><address type='noreply'/>",
        );
        let found = targets(&list, 50).unwrap();
        let seen: Vec<_> = found.iter().map(|target| (target.jid.as_str(), target.blind.is_some())).collect();
        assert_eq!(seen, [("a@b", false), ("d@b", true)]);
    }

    /// §4.5, §4.6: a copy names whom everybody may see, all marked, so that it is never multiplied again.
    #[test]
    fn r10_a_copy_goes_nowhere_else() {
        let xml = "<message xmlns='jabber:client' id='1' xml:lang='is' from='x@b/y' to='b'><addresses \
                   xmlns='http://jabber.org/protocol/address'><address type='to' jid='a@b'/><address type='bcc' \
                   jid='d@b'/><address type='replyto' jid='x@b'/></addresses><body>x</body></message>";
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        let of = |stanza: &Stanza| stanza.element().get_child("addresses", ns::ADDRESS).unwrap().clone();
        let found = targets(&of(&stanza), 50).unwrap();
        for (target, expected) in found.iter().zip([vec!["a@b", "x@b"], vec!["a@b", "x@b", "d@b"]]) {
            let copy = rewritten(&stanza, target.blind.as_ref());
            assert_eq!((copy.id(), copy.element().lang()), (Some("1"), Some("is")));
            let named: Vec<_> =
                of(&copy).children().filter_map(|child| child.attr("jid").map(str::to_owned)).collect();
            assert_eq!(named, expected);
            assert_eq!(targets(&of(&copy), 50), Ok(Vec::new()));
        }
    }
}
