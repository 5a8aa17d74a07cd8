//! PURE: what of the account's messages is archived, as far as its sessions know (XEP-0441): only there has a message an id
//! that its client may ask the archive for (XEP-0313 §3.5).

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::roster::Subscription;
use althing_proto::stanza::Stanza;
use althing_proto::xml::Element;

use super::SessionState;
use crate::delivery::carbons::{self, Way};
use crate::delivery::{keeping, kept};
use crate::storage::messages::{ArchiveDefault, ArchivePreferences};

impl SessionState {
    /// What the account has set; `None`: nothing, or it is not known.
    pub fn set_archive(&mut self, preferences: Option<ArchivePreferences>) {
        self.archive = preferences;
    }

    /// Whether messages with `peer` are archived, where `default` is what counts for who has set nothing. Of who is in the
    /// roster without a subscription it says no.
    #[must_use]
    pub fn archives(&self, peer: &Jid, default: ArchiveDefault) -> bool {
        match self.archive.as_ref().map_or(default, |preferences| preferences.of(peer)) {
            ArchiveDefault::Always => true,
            ArchiveDefault::Never => false,
            ArchiveDefault::Roster => self.subscription(&peer.to_bare()) != Subscription::None,
        }
    }

    /// The stanza as its client gets it, where that is not as it is: without an id of the account's archive that it is not
    /// in. `default`: as above; `None`: there are no archives.
    #[must_use]
    pub fn promised(&self, stanza: &Stanza, default: Option<ArchiveDefault>) -> Option<Stanza> {
        let account = self.account();
        if let Some((way, original)) = carbons::copied(stanza) {
            if !original.children().any(|child| kept::is_id_of(child, account)) {
                return None;
            }
            let peer = if way == Way::Received { "from" } else { "to" };
            let peer = original.attr(peer).and_then(|peer| Jid::new(peer).ok());
            let archives = default.zip(peer).is_some_and(|(default, peer)| self.archives(&peer, default));
            let archived =
                archives && Stanza::parse(original.clone()).is_ok_and(|it| keeping::keeping(&it).archive);
            return (!archived).then(|| with(stanza, without_id(stanza.element(), account)));
        }
        kept::id_of(stanza, account)?;
        let archives = default.zip(stanza.from()).is_some_and(|(default, peer)| self.archives(peer, default));
        let archived = archives && keeping::keeping(stanza).archive;
        (!archived).then(|| with(stanza, without_id(stanza.element(), account)))
    }
}

fn with(stanza: &Stanza, element: Element) -> Stanza {
    Stanza::from_parts(stanza.kind(), stanza.from().cloned(), stanza.to().cloned(), element)
}

/// The element without the account's id, nor that of what is wrapped in it (XEP-0297).
fn without_id(element: &Element, account: &BareJid) -> Element {
    let mut element = element.clone();
    for node in element.take_nodes() {
        match node.as_element() {
            Some(child) if kept::is_id_of(child, account) => {}
            Some(child)
                if child.has_ns(ns::CARBONS) || child.has_ns(ns::FORWARD) || child.name() == "message" =>
            {
                element.append_child(without_id(child, account));
            }
            _ => element.append_node(node),
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use althing_cluster::routes::BindIndex;
    use althing_proto::jid::FullJid;
    use althing_proto::stanza_id::StanzaId;

    use super::*;

    fn stanza(xml: &str) -> Stanza {
        Stanza::parse(xml.replacen('>', " xmlns='jabber:client'>", 1).parse().unwrap()).unwrap()
    }

    /// XEP-0313 §3.5, XEP-0441: an id is told where the message is in the archive, and nowhere else.
    #[test]
    fn an_id_is_told_of_what_is_archived_only() {
        let jid = FullJid::new("b@here/r").unwrap();
        let mut session = SessionState::new(jid.clone(), BindIndex(1), 1, Vec::new());
        let id = kept::stanza_id(&jid.to_bare(), StanzaId::from_bytes([1; 16]));
        let direct = |inside: &str| {
            stanza(&format!("<message from='a@here/x' to='b@here' type='chat'>{inside}</message>"))
                .with_child(id.clone())
        };
        let copy = {
            let original = direct("<body>x</body>").to_element();
            let forwarded = Element::builder("forwarded", ns::FORWARD).append(original).build();
            let received = Element::builder("received", ns::CARBONS).append(forwarded).build();
            stanza("<message from='b@here' to='b@here/r' type='chat'></message>").with_child(received)
        };
        let body = "<body>x</body>";
        let always = Some(ArchiveDefault::Always);
        let told = |session: &SessionState, stanza: &Stanza, default| {
            let bytes = session.promised(stanza, default).unwrap_or_else(|| stanza.clone()).to_bytes();
            String::from_utf8(bytes.to_vec()).unwrap().contains("<stanza-id ")
        };
        assert!(told(&session, &direct(body), always) && told(&session, &copy, always));
        assert!(!told(&session, &direct("<x xmlns='urn:x'/>"), always), "it waits, and is not archived");
        let private = "<no-permanent-store xmlns='urn:xmpp:hints'/>";
        assert!(!told(&session, &direct(&format!("{body}{private}")), always));
        for default in [None, Some(ArchiveDefault::Never), Some(ArchiveDefault::Roster)] {
            assert!(
                !told(&session, &direct(body), default) && !told(&session, &copy, default),
                "{default:?}"
            );
        }
        let peer = vec![Jid::new("a@here").unwrap()];
        let preferences =
            ArchivePreferences { default: ArchiveDefault::Always, always: Vec::new(), never: peer.clone() };
        session.set_archive(Some(preferences));
        assert!(!told(&session, &direct(body), always) && !told(&session, &copy, always));
        let preferences =
            ArchivePreferences { default: ArchiveDefault::Never, always: peer, never: Vec::new() };
        session.set_archive(Some(preferences));
        assert!(told(&session, &direct(body), always) && told(&session, &copy, always));
    }
}
