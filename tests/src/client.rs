//! A logged-in client: sends whenever it likes, while a task of its own reads.

use std::time::Duration;

use althing_proto::ns;
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::deadline::{step, within};
use crate::socket::Socket;
use crate::stream::{Event, Stream};

/// A stream with a background reader. What it has read waits in memory without a bound: a test client
/// must never be the slow consumer unless a test wants it (then hold the [`Stream`] and do not read).
pub struct Client {
    jid: String,
    writer: WriteHalf<Socket>,
    events: mpsc::UnboundedReceiver<Result<Event>>,
    reader: JoinHandle<()>,
    sequence: u64,
    patience: Duration,
}

impl Client {
    /// Takes over a stream; `jid` is the bound full JID, or empty while there is none.
    #[must_use]
    pub fn new(stream: Stream, jid: String) -> Client {
        let (socket, parser, inbox) = stream.into_parts();
        let (read, writer) = tokio::io::split(socket);
        let (sender, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read_all(read, parser, inbox, sender));
        Client { jid, writer, events, reader, sequence: 0, patience: step() }
    }

    /// The full JID that was bound.
    #[must_use]
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The bare JID that was bound.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().unwrap_or_default()
    }

    /// The domain that was bound.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.bare().rsplit('@').next().unwrap_or_default()
    }

    /// An id that this client has not used yet.
    pub fn fresh_id(&mut self) -> String {
        self.sequence += 1;
        format!("t{}", self.sequence)
    }

    /// Sends XML text as it is.
    ///
    /// # Errors
    /// A closed connection, or one that takes no more.
    pub async fn send(&mut self, xml: &str) -> Result<()> {
        within("sending", async {
            self.writer.write_all(xml.as_bytes()).await?;
            self.writer.flush().await?;
            Ok(())
        })
        .await
    }

    /// From now on it waits so long for an event, and not one step.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The next event, within one step, or its patience.
    ///
    /// # Errors
    /// Silence for too long, or XML that no server may send.
    pub async fn event(&mut self) -> Result<Event> {
        match tokio::time::timeout(self.patience, self.events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => Ok(Event::Eof),
            Err(_) => bail!("nothing more came to {} within {:?}", self.jid, self.patience),
        }
    }

    /// The next event, if it is there already.
    ///
    /// # Errors
    /// XML that no server may send.
    pub fn event_now(&mut self) -> Result<Option<Event>> {
        self.events.try_recv().ok().transpose()
    }

    /// The next stanza.
    ///
    /// # Errors
    /// A stream error, the end of the stream, or silence for too long.
    pub async fn recv(&mut self) -> Result<Element> {
        match self.event().await? {
            Event::Element(element) if element.is("error", ns::STREAM) => {
                bail!("stream error for {}: {}", self.jid, condition_of(&element))
            }
            Event::Element(element) => Ok(element),
            other => bail!("expected a stanza for {}, got {other:?}", self.jid),
        }
    }

    /// The next stanza that `wanted` says yes to; others before it are dropped.
    ///
    /// # Errors
    /// As [`Client::recv`].
    pub async fn recv_until(&mut self, wanted: impl Fn(&Element) -> bool) -> Result<Element> {
        loop {
            let stanza = self.recv().await?;
            if wanted(&stanza) {
                return Ok(stanza);
            }
        }
    }

    /// Sends an IQ with this payload and returns the answer, a result or an error; other stanzas on the way
    /// are dropped.
    ///
    /// # Errors
    /// No answer in time, or the end of the stream.
    pub async fn iq(&mut self, kind: &str, to: Option<&str>, payload: &str) -> Result<Element> {
        let id = self.fresh_id();
        let to = to.map(|jid| format!(" to='{jid}'")).unwrap_or_default();
        self.send(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>")).await?;
        self.recv_until(|stanza| stanza.name() == "iq" && stanza.attr("id") == Some(&id)).await
    }

    /// Pings the server (XEP-0199); an error is an answer too.
    ///
    /// # Errors
    /// As [`Client::iq`].
    pub async fn ping(&mut self) -> Result<()> {
        let to = self.domain().to_owned();
        self.iq("get", Some(&to), &format!("<ping xmlns='{}'/>", ns::PING)).await.map(drop)
    }

    /// Sends initial presence and takes its own copy (RFC 6121 §4.2.2).
    ///
    /// # Errors
    /// No copy in time.
    pub async fn come_online(&mut self) -> Result<()> {
        self.send("<presence/>").await?;
        let own = self.jid.clone();
        self.recv_until(|stanza| stanza.name() == "presence" && stanza.attr("from") == Some(&own)).await?;
        Ok(())
    }

    /// Closes the stream and waits for the server's end (RFC 6120 §4.4); stanzas on the way are dropped.
    ///
    /// # Errors
    /// A server that does not close in time, or with an error.
    pub async fn close(mut self) -> Result<()> {
        self.send("</stream:stream>").await?;
        loop {
            match self.event().await? {
                Event::End => return Ok(()),
                Event::Eof => bail!("the connection ended without </stream:stream>"),
                Event::Element(element) => {
                    ensure!(!element.is("error", ns::STREAM), "stream error: {}", condition_of(&element));
                }
                Event::Header(_) => bail!("a second stream header"),
            }
        }
    }

    /// Waits for a stream error and the end; returns the name of the condition.
    ///
    /// # Errors
    /// An end without an error, or no end in time.
    pub async fn expect_stream_error(&mut self) -> Result<String> {
        loop {
            match self.event().await? {
                Event::Element(element) if element.is("error", ns::STREAM) => {
                    return Ok(condition_of(&element));
                }
                Event::Element(_) => {}
                other => bail!("expected a stream error for {}, got {other:?}", self.jid),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The name of the defined condition of a stream or stanza error element.
#[must_use]
pub fn condition_of(error: &Element) -> String {
    let condition = error.children().find(|child| {
        (child.ns() == ns::STREAM_ERRORS || child.ns() == ns::STANZA_ERRORS) && child.name() != "text"
    });
    condition.map_or_else(|| "no condition".to_owned(), |child| child.name().to_owned())
}

/// The condition of a stanza of type `error`.
///
/// # Errors
/// A stanza that is none.
pub fn stanza_error(stanza: &Element) -> Result<String> {
    ensure!(stanza.attr("type") == Some("error"), "no error: type {:?}", stanza.attr("type"));
    let error =
        stanza.children().find(|child| child.name() == "error").context("an error without <error/>")?;
    Ok(condition_of(error))
}

async fn read_all(
    mut socket: ReadHalf<Socket>,
    mut parser: althing_proto::xml::reader::StreamReader,
    mut inbox: Vec<u8>,
    sender: mpsc::UnboundedSender<Result<Event>>,
) {
    let mut chunk = vec![0_u8; 32 * 1024];
    loop {
        let mut input = inbox.as_slice();
        loop {
            let event = match parser.next(&mut input) {
                Ok(None) => break,
                Ok(Some(event)) => Ok(event.into()),
                Err(error) => Err(anyhow::Error::new(error).context("the server sent bad XML")),
            };
            let failed = event.is_err();
            if sender.send(event).is_err() || failed {
                return;
            }
        }
        inbox.clear();
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => {
                // The receiver may be gone; then nobody waits for this either.
                let _ = sender.send(Ok(Event::Eof));
                return;
            }
            Ok(count) => inbox.extend_from_slice(&chunk[..count]),
        }
    }
}
