//! PURE: a page as it is sent (§4.2, §4.3): a message each, and what ends it.

use althing_proto::jid::FullJid;
use althing_proto::ns;
use althing_proto::rsm;
use althing_proto::stanza::{Kind, MessageType, Stanza};
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use super::query::Query;
use crate::storage::messages::{ArchivePage, ArchivedMessage};

/// What the wrapping of a message has at most, beside its text.
const WRAPPING: usize = 1_024;

/// Most bytes of a page, unless one message alone has more. What waits for the client is half of the outbox at most
/// when a page comes.
pub(super) fn most_bytes(outbox: usize) -> usize {
    outbox / 8
}

/// The results for the resource that asks, in the order in which they are sent, and the `<fin/>` behind them.
pub(super) fn of(mut page: ArchivePage, query: &Query, to: &FullJid, most: usize) -> (Vec<Stanza>, Element) {
    let dropped = shorten(&mut page.messages, query.archive.backwards, most);
    let complete = page.complete && !dropped;
    let ids: Vec<String> = page.messages.iter().map(|message| message.id.to_string()).collect();
    // Where the page ends before it is full its end is what was looked at last: the client goes on from there.
    let looked = page.looked.filter(|_| !dropped).map(|id| id.to_string());
    let (first, last) = match query.archive.backwards {
        true => (looked.as_ref().or(ids.first()), ids.last().or(looked.as_ref())),
        false => (ids.first().or(looked.as_ref()), looked.as_ref().or(ids.last())),
    };
    let ends = first.zip(last).map(|(first, last)| (first.as_str(), last.as_str()));
    let mut fin = Element::builder("fin", ns::MAM).append(rsm::page(ends, page.count)).build();
    if complete {
        fin.set(name!("complete"), "true");
    }
    let results = page.messages.iter().zip(&ids);
    let mut results: Vec<Stanza> =
        results.map(|(message, id)| result(message, id, query.id.as_deref(), to)).collect();
    if query.flipped {
        results.reverse();
    }
    (results, fin)
}

/// Takes away from a page what is too much of it, at the end that it goes to; whether something was.
fn shorten(messages: &mut Vec<ArchivedMessage>, backwards: bool, most: usize) -> bool {
    let mut bytes = 0;
    let fits = |message: &&ArchivedMessage| {
        bytes += message.xml.len() + WRAPPING;
        bytes <= most
    };
    let kept = match backwards {
        true => messages.iter().rev().take_while(fits).count(),
        false => messages.iter().take_while(fits).count(),
    };
    let kept = kept.max(1).min(messages.len());
    let dropped = messages.len() - kept;
    if backwards {
        messages.drain(..dropped);
    } else {
        messages.truncate(kept);
    }
    dropped > 0
}

fn result(message: &ArchivedMessage, id: &str, query: Option<&str>, to: &FullJid) -> Stanza {
    let delay = Element::builder("delay", ns::DELAY).set(name!("stamp"), message.stamp.to_xep0082()).build();
    // §3.2: without the stanza its place stays.
    let stanza = Stanza::from_standalone(&message.xml).map(|stanza| stanza.to_element());
    let forwarded = Element::builder("forwarded", ns::FORWARD).append(delay).append_all(stanza).build();
    let mut result = Element::builder("result", ns::MAM).set(name!("id"), id).append(forwarded).build();
    if let Some(query) = query {
        result.set(name!("queryid"), query);
    }
    let element = Element::builder("message", ns::CLIENT).append(result).build();
    let kind = Kind::Message(MessageType::Normal);
    Stanza::from_parts(kind, Some(to.to_bare().into()), Some(to.clone().into()), element)
}

#[cfg(test)]
mod tests {
    use althing_proto::stanza_id::StanzaId;
    use althing_proto::time::Timestamp;
    use bytes::Bytes;

    use super::*;
    use crate::storage::messages::ArchiveQuery;

    fn message(number: u8) -> ArchivedMessage {
        ArchivedMessage {
            id: StanzaId::from_bytes([number; 16]),
            stamp: Timestamp::from_millis(number.into()),
            xml: Bytes::from_static(
                b"<message xmlns='jabber:client' from='a@b/c' to='d@e'><body>x</body></message>",
            ),
            retracted: false,
        }
    }

    fn query(backwards: bool, flipped: bool) -> Query {
        let archive = ArchiveQuery { backwards, ..ArchiveQuery::default() };
        Query { id: Some("q".to_owned()), archive, flipped }
    }

    fn sent(query: &Query, most: usize) -> (Vec<String>, String) {
        let page = ArchivePage {
            messages: [1, 2, 3].map(message).into(),
            complete: true,
            count: Some(3),
            looked: None,
        };
        let (results, fin) = of(page, query, &FullJid::new("d@e/f").unwrap(), most);
        let text = |stanza: &Stanza| String::from_utf8(stanza.to_bytes().to_vec()).unwrap();
        (results.iter().map(text).collect(), String::from(&fin))
    }

    #[test]
    fn a_result_has_the_message_its_time_and_its_id() {
        let (results, fin) = sent(&query(false, false), usize::MAX);
        assert_eq!(
            results[0],
            "<message to='d@e/f' from='d@e'><result xmlns='urn:xmpp:mam:2' id='01010101010101010101010101010101' \
             queryid='q'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' \
             stamp='1970-01-01T00:00:00.001Z'/><message xmlns='jabber:client' from='a@b/c' to='d@e'>\
             <body>x</body></message></forwarded></result></message>"
        );
        for part in ["complete='true'", "<first>0101", "<last>0303", "<count>3</count>"] {
            assert!(fin.contains(part) || fin.contains(&part.replace('\'', "\"")), "{part}: {fin}");
        }
    }

    #[test]
    fn a_flipped_page_has_the_same_ends() {
        let (results, fin) = sent(&query(false, true), usize::MAX);
        assert!(results[0].contains("id='0303") && results[2].contains("id='0101"));
        assert!(fin.contains("<first>0101") && fin.contains("<last>0303"));
    }

    #[test]
    fn a_page_has_a_bound_in_bytes_and_goes_on_where_it_ends() {
        for (most, forwards, backwards) in [(2_400, 2, 2), (1, 1, 1), (usize::MAX, 3, 3)] {
            let (results, fin) = sent(&query(false, false), most);
            assert_eq!((results.len(), fin.contains("complete")), (forwards, most == usize::MAX));
            assert!(results[0].contains("id='0101"));
            let (results, _) = sent(&query(true, false), most);
            assert_eq!(results.len(), backwards);
            assert!(results.last().unwrap().contains("id='0303"));
        }
    }

    /// What the client asks for next is behind what was looked at, also where nothing of it was for it.
    #[test]
    fn a_page_that_ends_before_it_is_full_says_how_far_it_has_come() {
        let to = FullJid::new("d@e/f").unwrap();
        let looked = Some(StanzaId::from_bytes([9; 16]));
        for (messages, backwards, first, last) in [
            (vec![], false, "0909", "0909"),
            (vec![], true, "0909", "0909"),
            (vec![message(1), message(2)], false, "0101", "0909"),
            (vec![message(1), message(2)], true, "0909", "0202"),
        ] {
            let page = ArchivePage { messages, looked, ..ArchivePage::default() };
            let (_, fin) = of(page, &query(backwards, false), &to, usize::MAX);
            let fin = String::from(&fin);
            assert!(
                fin.contains(&format!("<first>{first}")) && fin.contains(&format!("<last>{last}")),
                "{fin}"
            );
            assert!(!fin.contains("complete"), "{fin}");
        }
    }

    #[test]
    fn an_empty_page_tells_no_ends() {
        let (results, fin) = of(
            ArchivePage { complete: true, ..ArchivePage::default() },
            &query(false, false),
            &FullJid::new("d@e/f").unwrap(),
            9,
        );
        assert!(results.is_empty());
        assert!(!String::from(&fin).contains("first"));
    }
}
