//! Messages to who is away: a writer that waits until they are kept (XEP-0160, XEP-0198), and the one who takes them later.

use std::ops::Range;
use std::time::Duration;

use althing_proto::ns;
use anyhow::{Result, ensure};

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::login::{Account, connect, newcomer};

/// Writes with XEP-0198.
pub struct Writer {
    /// Its client.
    pub client: Client,
    written: usize,
}

impl Writer {
    /// Somebody new, who waits so long for each answer.
    ///
    /// # Errors
    /// It cannot register, log in or manage its stream.
    pub async fn come(endpoint: &Endpoint, patience: Duration) -> Result<Writer> {
        let mut client = newcomer(endpoint, "writer").await?;
        client.set_patience(patience);
        Writer::with(client).await
    }

    /// A client that has not asked for XEP-0198 yet.
    ///
    /// # Errors
    /// It cannot manage its stream.
    pub async fn with(mut client: Client) -> Result<Writer> {
        client.send(&format!("<enable xmlns='{}'/>", ns::STREAM_MANAGEMENT)).await?;
        client.recv_until(|element| element.name() == "enabled").await?;
        Ok(Writer { client, written: 0 })
    }

    /// It has written so many stanzas in another way.
    pub fn has_written(&mut self, stanzas: usize) {
        self.written += stanzas;
    }

    /// Writes messages with those numbers to `to`, who gets them as `m0` and so on; returns when the server has acknowledged all.
    ///
    /// # Errors
    /// The server refuses one, or acknowledges too little for too long.
    pub async fn write(&mut self, to: &str, numbers: Range<usize>) -> Result<()> {
        let mut text = String::new();
        self.written += numbers.len();
        for number in numbers {
            text += &format!("<message to='{to}' type='chat' id='m{number}'><body>{number}</body></message>");
        }
        text += &format!("<r xmlns='{}'/>", ns::STREAM_MANAGEMENT);
        self.client.send(&text).await?;
        let all = self.written.to_string();
        loop {
            let word = self.client.recv_until(|stanza| ["a", "message"].contains(&stanza.name())).await?;
            ensure!(word.name() == "a", "refused: {}", String::from(&word));
            if word.attr("h") == Some(&all) {
                return Ok(());
            }
        }
    }
}

/// Who was away takes all that was kept, from `m0` on: in order, each once, and no more.
///
/// # Errors
/// Something else comes, or nothing for too long.
pub async fn take(endpoint: &Endpoint, account: &Account, expected: usize, patience: Duration) -> Result<()> {
    let mut owner = connect(endpoint, account, "phone").await?;
    owner.set_patience(patience);
    owner.send("<presence/>").await?;
    for number in 0..expected {
        let message = owner.recv_until(|stanza| stanza.name() == "message").await?;
        let wanted = format!("m{number}");
        ensure!(message.attr("id") == Some(&wanted), "{:?} in the place of {wanted}", message.attr("id"));
    }
    owner.send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    let is_next = |stanza: &_| is_message_or(stanza, "end");
    let next = owner.recv_until(is_next).await?;
    ensure!(next.name() == "iq", "one more: {:?}", next.attr("id"));
    owner.close().await
}

fn is_message_or(stanza: &minidom::Element, id: &str) -> bool {
    stanza.name() == "message" || stanza.attr("id") == Some(id)
}
