//! Two clients that send each other numbered messages: nothing lost, doubled, reordered.

use anyhow::{Result, ensure};

use crate::client::Client;

/// Messages under way in each direction: far below what a session may owe its client.
const WINDOW: usize = 200;

/// One side of a conversation; it goes on from round to round.
pub struct Speaker {
    client: Client,
    peer: String,
    sent: usize,
    received: usize,
}

impl Speaker {
    /// A side that speaks through `client` to the full JID `peer`. Nothing else may come for the client.
    #[must_use]
    pub fn new(client: Client, peer: String) -> Speaker {
        Speaker { client, peer, sent: 0, received: 0 }
    }

    /// How many messages it has received.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received
    }

    /// Sends `count` more messages and takes as many, which must come in order and be all that comes.
    ///
    /// # Errors
    /// Anything else that comes, or silence for too long.
    pub async fn round(&mut self, count: usize) -> Result<()> {
        let goal = self.received + count;
        while self.received < goal {
            let mut burst = String::new();
            while self.sent < goal && self.sent < self.received + WINDOW {
                burst.push_str(&message(&self.peer, self.sent));
                self.sent += 1;
            }
            if !burst.is_empty() {
                self.client.send(&burst).await?;
            }
            self.take().await?;
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<()> {
        let (stanza, expected) = (self.client.recv().await?, self.received.to_string());
        ensure!(
            stanza.name() == "message" && stanza.attr("from") == Some(&self.peer),
            "not from the peer: {stanza:?}"
        );
        ensure!(stanza.attr("type") == Some("chat"), "an error came: {stanza:?}");
        ensure!(
            stanza.attr("id") == Some(&expected),
            "{} expected number {expected}, got {:?}",
            self.client.jid(),
            stanza.attr("id")
        );
        self.received += 1;
        Ok(())
    }

    /// Ends it: what came twice would come before the answer to a ping.
    ///
    /// # Errors
    /// Something that comes after the last message.
    pub async fn finish(mut self) -> Result<Client> {
        let id = self.client.fresh_id();
        self.client.send(&format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>")).await?;
        let last = self.client.recv().await?;
        ensure!(
            last.name() == "iq" && last.attr("id") == Some(&id),
            "something after the last message: {last:?}"
        );
        Ok(self.client)
    }
}

fn message(to: &str, number: usize) -> String {
    format!("<message to='{to}' type='chat' id='{number}'><body>number {number}</body></message>")
}

/// A round of both sides at the same time.
///
/// # Errors
/// As [`Speaker::round`].
pub async fn round(one: &mut Speaker, other: &mut Speaker, count: usize) -> Result<()> {
    let (left, right) = tokio::join!(one.round(count), other.round(count));
    left.and(right)
}
