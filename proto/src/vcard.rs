//! PURE: what the server reads of a vCard (XEP-0054): its names, and the hash of its photo (XEP-0153).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::ns;

/// The SHA-1 of the photo in hexadecimal digits, as presence advertises it (XEP-0153 §3.1); `None` without one.
/// An address of a photo (`EXTVAL`) is none, and neither is what is no base64.
#[must_use]
pub fn photo_hash(vcard: &Element) -> Option<String> {
    let photo = vcard.get_child("PHOTO", ns::VCARD)?.get_child("BINVAL", ns::VCARD)?;
    let base64: String = photo.text().chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(base64).ok().filter(|bytes| !bytes.is_empty())?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    Some(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The names of a vCard by which a directory finds it. Empty where the vCard has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The given name.
    pub given: String,
    /// The family name.
    pub family: String,
    /// The nickname.
    pub nick: String,
    /// The first mail address.
    pub email: String,
}

/// The names of a vCard; `None` for one that its owner keeps out of directories: its class is private or
/// confidential (RFC 2426 §3.7.1).
#[must_use]
pub fn names(vcard: &Element) -> Option<Names> {
    if let Some(class) = vcard.get_child("CLASS", ns::VCARD)
        && ["PRIVATE", "CONFIDENTIAL"].iter().any(|word| class.has_child(*word, ns::VCARD))
    {
        return None;
    }
    let text = |element: Option<&Element>| element.map(Element::text).unwrap_or_default().trim().to_owned();
    let child = |name| vcard.get_child(name, ns::VCARD);
    let name = |part| text(child("N").and_then(|name| name.get_child(part, ns::VCARD)));
    let email = child("EMAIL").map(|email| email.get_child("USERID", ns::VCARD).unwrap_or(email));
    Some(Names {
        given: name("GIVEN"),
        family: name("FAMILY"),
        nick: text(child("NICKNAME")),
        email: text(email),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcard(xml: &str) -> Element {
        format!("<vCard xmlns='vcard-temp'>{xml}</vCard>").parse().unwrap()
    }

    #[test]
    fn the_hash_is_of_the_image_and_not_of_its_text() {
        // "abc", whose SHA-1 is in RFC 3174 §7.3.
        for binval in ["YWJj", "\n  YW\n  Jj\n"] {
            let photo = vcard(&format!("<PHOTO><TYPE>image/png</TYPE><BINVAL>{binval}</BINVAL></PHOTO>"));
            assert_eq!(photo_hash(&photo).as_deref(), Some("a9993e364706816aba3e25717850c26c9cd0d89d"));
        }
        for none in ["", "<PHOTO/>", "<PHOTO><BINVAL/></PHOTO>", "<PHOTO><BINVAL>***</BINVAL></PHOTO>"] {
            assert_eq!(photo_hash(&vcard(none)), None, "{none}");
        }
        assert_eq!(photo_hash(&vcard("<PHOTO><EXTVAL>http://a</EXTVAL></PHOTO>")), None);
    }

    #[test]
    fn names_are_found_unless_the_vcard_is_private() {
        let xml = "<N><FAMILY> Capulet </FAMILY><GIVEN>Juliet</GIVEN></N><NICKNAME>JuliC</NICKNAME>\
                   <EMAIL><INTERNET/><USERID>juliet@shakespeare.lit</USERID></EMAIL>";
        let names = names(&vcard(xml)).unwrap();
        let expected = ("Juliet", "Capulet", "JuliC", "juliet@shakespeare.lit");
        assert_eq!((&*names.given, &*names.family, &*names.nick, &*names.email), expected);
        assert_eq!(super::names(&vcard("")), Some(Names::default()));
        assert_eq!(super::names(&vcard(&format!("{xml}<CLASS><PRIVATE/></CLASS>"))), None);
        assert!(super::names(&vcard(&format!("{xml}<CLASS><PUBLIC/></CLASS>"))).is_some());
    }
}
