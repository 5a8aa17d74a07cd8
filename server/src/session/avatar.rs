//! PURE: the hash of an account's avatar in the presence of its sessions (XEP-0153, and the rules for servers of
//! XEP-0398, "Presence Broadcast").

use althing_proto::ns;
use althing_proto::stanza::Stanza;
use althing_proto::xml::Element;

/// What a session knows of its account's avatar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Avatar {
    /// How often the vCard was stored; 0: never.
    pub revision: u64,
    /// The hash of its photo, in hexadecimal digits.
    pub hash: Option<String>,
}

/// What a client says of its account's avatar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said<'a> {
    /// Nothing, or that it does not know yet.
    Nothing,
    /// That there is none, or that it wants to show none.
    None,
    /// A hash.
    Hash(&'a str),
}

fn update(presence: &Element) -> Option<&Element> {
    presence.get_child("x", ns::VCARD_UPDATE)
}

/// The available presence as others get it: with the hash, but where the client says itself that there is no photo.
/// Without an avatar it is the client's own; then nothing is copied.
#[must_use]
pub fn advertise(presence: &Stanza, avatar: &Avatar) -> Stanza {
    let Some(hash) = &avatar.hash else { return presence.clone() };
    let photo = update(presence.element()).and_then(|x| x.get_child("photo", ns::VCARD_UPDATE));
    let text = photo.map(Element::text).unwrap_or_default();
    let said = match photo {
        None => Said::Nothing,
        Some(_) if text.trim().is_empty() => Said::None,
        Some(_) => Said::Hash(text.trim()),
    };
    match said {
        Said::None => presence.clone(),
        Said::Hash(said) if said.eq_ignore_ascii_case(hash) => presence.clone(),
        Said::Nothing | Said::Hash(_) => with_photo(presence, hash),
    }
}

/// The presence that tells of a change of the avatar; `None` where it would say nothing new. `shown` is what others
/// have got.
#[must_use]
pub fn changed(own: &Stanza, shown: &Stanza, avatar: &Avatar) -> Option<Stanza> {
    let hash = |presence: &Stanza| {
        let photo = update(presence.element()).and_then(|x| x.get_child("photo", ns::VCARD_UPDATE));
        photo.map(|photo| photo.text().trim().to_owned())
    };
    let now = match &avatar.hash {
        Some(_) => advertise(own, avatar),
        // The photo is gone: who was told of one is told so.
        None if hash(shown).is_some_and(|shown| !shown.is_empty()) => with_photo(own, ""),
        None => return None,
    };
    (hash(&now) != hash(shown)).then_some(now)
}

/// A copy whose update element has that photo.
fn with_photo(presence: &Stanza, hash: &str) -> Stanza {
    let mut element = presence.element().clone();
    while element.remove_child("x", ns::VCARD_UPDATE).is_some() {}
    let mut photo = Element::bare("photo", ns::VCARD_UPDATE);
    if !hash.is_empty() {
        photo.append_text_node(hash);
    }
    element.append_child(Element::builder("x", ns::VCARD_UPDATE).append(photo).build());
    Stanza::from_parts(presence.kind(), presence.from().cloned(), presence.to().cloned(), element)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(xml: &str) -> Stanza {
        let xml = format!("<presence xmlns='jabber:client' from='a@b/c'><show>away</show>{xml}</presence>");
        Stanza::parse(xml.parse().unwrap()).unwrap()
    }

    fn x(photo: &str) -> String {
        format!("<x xmlns='vcard-temp:x:update'>{photo}</x>")
    }

    fn avatar(hash: Option<&str>) -> Avatar {
        Avatar { revision: 1, hash: hash.map(str::to_owned) }
    }

    /// XEP-0398, "Presence Broadcast", sentence by sentence.
    #[test]
    fn the_hash_is_put_in_unless_the_client_shows_none() {
        let advertised = presence(&x("<photo>ab12</photo>")).to_bytes();
        for said in [String::new(), x(""), x("<photo>cd34</photo>"), x("<photo>ab12</photo>")] {
            let shown = advertise(&presence(&said), &avatar(Some("ab12")));
            assert_eq!(shown.to_bytes(), advertised, "{said}");
        }
        let none = presence(&x("<photo/>"));
        assert_eq!(advertise(&none, &avatar(Some("ab12"))).to_bytes(), none.to_bytes());
        let upper = presence(&x("<photo>AB12</photo>"));
        assert_eq!(advertise(&upper, &avatar(Some("ab12"))).to_bytes(), upper.to_bytes());
    }

    #[test]
    fn without_an_avatar_nothing_is_copied() {
        let own = presence(&x("<photo>cd34</photo>"));
        let shown = advertise(&own, &avatar(None));
        assert!(std::ptr::eq(shown.element(), own.element()));
    }

    #[test]
    fn a_change_is_told_once_and_a_photo_that_goes_too() {
        let own = presence("");
        let first = changed(&own, &own, &avatar(Some("ab12"))).unwrap();
        assert_eq!(first.to_bytes(), presence(&x("<photo>ab12</photo>")).to_bytes());
        assert!(changed(&own, &first, &avatar(Some("ab12"))).is_none());
        let gone = changed(&own, &first, &avatar(None)).unwrap();
        assert_eq!(gone.to_bytes(), presence(&x("<photo/>")).to_bytes());
        assert!(changed(&own, &gone, &avatar(None)).is_none());
        let again = changed(&own, &gone, &avatar(Some("cd34"))).unwrap();
        assert_eq!(again.to_bytes(), presence(&x("<photo>cd34</photo>")).to_bytes());
        let silent = presence(&x("<photo/>"));
        assert!(changed(&silent, &silent, &avatar(Some("ab12"))).is_none(), "the client shows none");
    }
}
