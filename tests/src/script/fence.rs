//! "Nothing came" without a sleep, and the friendship that scripts begin with.

use althing_proto::ns;
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;

use super::play::{Player, show};
use super::runner::Run;
use crate::client::Client;
use crate::login;
use crate::random;

impl Run<'_> {
    /// Proves that nothing is on its way to `who`: every other client sends it a marker, which comes after all
    /// that this client has sent it before (RFC 6120 §10.1), or comes back as an error where it is known to; then
    /// `who` pings the server.
    pub(super) async fn nothing_for(&mut self, who: &str) -> Result<()> {
        let Some((jid, own)) = self.players.get(who).and_then(Player::address) else {
            bail!("{who} is not bound");
        };
        let others: Vec<String> = self.players.keys().filter(|name| *name != who).cloned().collect();
        for name in others {
            let Some(sender) = self.players.get_mut(&name) else { continue };
            let Some((_, from)) = sender.address() else { continue };
            let id = format!("fence-{}", random::hex(4));
            sender.send(&format!("<message{from} to='{jid}' id='{id}' type='normal'/>")).await?;
            if self.unheard.contains(&(name.clone(), who.to_owned())) {
                let back =
                    |stanza: &Element| stanza.attr("id") == Some(&id) && stanza.attr("type") == Some("error");
                self.only(&name, back).await?;
            } else {
                self.only(who, |stanza| stanza.attr("id") == Some(&id)).await?;
            }
        }
        let id = format!("fence-{}", random::hex(4));
        let player = self.players.get_mut(who).context("no such client")?;
        let server = player.server();
        let ping = format!("<iq{own} type='get' id='{id}' to='{server}'><ping xmlns='{}'/></iq>", ns::PING);
        player.send(&ping).await?;
        self.only(who, |stanza| stanza.attr("id") == Some(&id)).await
    }

    /// The next stanza for `who` must be the marker.
    async fn only(&mut self, who: &str, is_marker: impl Fn(&Element) -> bool) -> Result<()> {
        let player = self.players.get_mut(who).context("no such client")?;
        let got = player.next(&self.captures).await?;
        ensure!(is_marker(&got), "{who} should receive nothing, but received: {}", show(&got));
        Ok(())
    }

    /// At the end nothing may be left that the script does not name.
    pub(super) async fn nothing_left(&mut self) -> Result<()> {
        let names: Vec<String> = self.players.keys().cloned().collect();
        // A client that ignores its stanzas would let the markers of others vanish among them; they still count.
        for name in names {
            let looks =
                self.players.get(&name).is_some_and(|player| !player.ignoring && player.address().is_some());
            if looks {
                self.nothing_for(&name).await?;
            }
        }
        Ok(())
    }

    /// Subscribes two accounts to each other's presence by clients of their own, which then leave.
    pub(super) async fn befriend(&mut self, one: &str, other: &str) -> Result<()> {
        let mut left = self.go_between(one).await?;
        let mut right = self.go_between(other).await?;
        subscribe(&mut left, &mut right).await?;
        subscribe(&mut right, &mut left).await?;
        left.close().await?;
        // The second leaves when it has seen the first one go: then no presence of theirs is under way.
        right
            .recv_until(|stanza| stanza.name() == "presence" && stanza.attr("type") == Some("unavailable"))
            .await?;
        right.close().await
    }

    async fn go_between(&self, name: &str) -> Result<Client> {
        let player = self.players.get(name).context("no such client")?;
        let (endpoint, account) = player.account().context("a component has no roster")?;
        let mut client = login::connect(endpoint, account, "befriending").await?;
        let query = format!("<query xmlns='{}'/>", ns::ROSTER);
        client.iq("get", None, &query).await?;
        client.come_online().await?;
        Ok(client)
    }
}

/// The handshake of RFC 6121 §3.1; ends when `from` has seen a presence of `to`.
async fn subscribe(from: &mut Client, to: &mut Client) -> Result<()> {
    let (asker, contact) = (from.bare().to_owned(), to.bare().to_owned());
    from.send(&format!("<presence to='{contact}' type='subscribe'/>")).await?;
    to.recv_until(|stanza| stanza.name() == "presence" && stanza.attr("type") == Some("subscribe")).await?;
    to.send(&format!("<presence to='{asker}' type='subscribed'/>")).await?;
    let sender = to.jid().to_owned();
    from.recv_until(|stanza| {
        stanza.name() == "presence" && stanza.attr("type").is_none() && stanza.attr("from") == Some(&sender)
    })
    .await?;
    // What the server still does for the one who agreed (roster push) is done once it answers.
    to.ping().await
}
