//! Rosters and presence between clients of a test.

use althing_proto::ns;
use anyhow::{Context, Result, ensure};
use minidom::Element;

use crate::client::Client;

/// `watcher` gets the presence of `watched` from now on (RFC 6121 §3.1). Both must be online; ends when the
/// watcher has seen the watched one available.
///
/// # Errors
/// A step that takes too long.
pub async fn subscribe(watcher: &mut Client, watched: &mut Client) -> Result<()> {
    let (from, to) = (watcher.bare().to_owned(), watched.bare().to_owned());
    watcher.send(&format!("<presence type='subscribe' to='{to}'/>")).await?;
    watched
        .recv_until(|stanza| stanza.attr("type") == Some("subscribe") && stanza.attr("from") == Some(&from))
        .await?;
    watched.send(&format!("<presence type='subscribed' to='{from}'/>")).await?;
    let from = watched.jid().to_owned();
    watcher.recv_until(|stanza| is_presence(stanza, &from, None)).await?;
    Ok(())
}

/// Whether `stanza` is presence from the full JID `from`, of this type.
#[must_use]
pub fn is_presence(stanza: &Element, from: &str, kind: Option<&str>) -> bool {
    stanza.name() == "presence" && stanza.attr("from") == Some(from) && stanza.attr("type") == kind
}

/// The roster as sorted lines `jid subscription name groups`.
///
/// # Errors
/// No answer, or one that is no roster.
pub async fn roster(client: &mut Client) -> Result<Vec<String>> {
    let answer = client.iq("get", None, &format!("<query xmlns='{}'/>", ns::ROSTER)).await?;
    let query = answer.get_child("query", ns::ROSTER).context("no roster")?;
    let line = |item: &Element| {
        let attr = |name: &str| item.attr(name).unwrap_or("-").to_owned();
        let mut groups: Vec<String> = item.children().map(Element::text).collect();
        groups.sort();
        format!("{} {} {} {}", attr("jid"), attr("subscription"), attr("name"), groups.join(","))
    };
    let mut items: Vec<String> = query.children().map(line).collect();
    items.sort();
    Ok(items)
}

/// Puts an item into the roster; `inner` is what follows its `jid`, up to the end of the element.
///
/// # Errors
/// Refusal, or no answer.
pub async fn add_contact(client: &mut Client, jid: &str, inner: &str) -> Result<()> {
    let query = format!("<query xmlns='{}'><item jid='{jid}' {inner}</query>", ns::ROSTER);
    let answer = client.iq("set", None, &query).await?;
    ensure!(answer.attr("type") == Some("result"), "the roster refused {jid}");
    Ok(())
}
