//! A client's XML stream before anyone reads it in the background: header, STARTTLS, raw bytes.

use althing_proto::ns;
use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::{StreamHeader, StreamReader, XmlEvent};
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deadline::within;
use crate::endpoint::Endpoint;
use crate::script::captures::escape_xml;
use crate::script::parser::Security;
use crate::socket::Socket;
use crate::tls::{self, Versions};

/// What a server may send a client: more than it accepts from one.
const LIMITS: Limits = Limits { stanza_bytes: 8 << 20, depth: 256, attributes: 1024, children: 1 << 20 };

/// What comes next on a stream.
#[derive(Debug)]
pub enum Event {
    /// The server's stream header.
    Header(StreamHeader),
    /// A stanza, features, a stream error, an answer of SASL or STARTTLS.
    Element(Element),
    /// `</stream:stream>`
    End,
    /// The connection is closed (or was reset).
    Eof,
}

impl From<XmlEvent> for Event {
    fn from(event: XmlEvent) -> Self {
        match event {
            XmlEvent::StreamStart(header) => Event::Header(header),
            XmlEvent::Element(element) => Event::Element(element),
            XmlEvent::StreamEnd => Event::End,
        }
    }
}

/// A stream that is read by whoever holds it.
pub struct Stream {
    socket: Socket,
    reader: StreamReader,
    inbox: Vec<u8>,
    domain: String,
}

impl Stream {
    /// Connects and, for [`Security::DirectTls`], does the TLS handshake. Sends no XML.
    ///
    /// # Errors
    /// No connection, or a failed handshake.
    pub async fn connect(endpoint: &Endpoint, security: Security, versions: Versions) -> Result<Stream> {
        let direct = security == Security::DirectTls;
        let address = if direct { endpoint.c2s_tls } else { endpoint.c2s };
        let socket = within("connecting", async {
            let tcp =
                TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))?;
            tcp.set_nodelay(true)?;
            if !direct {
                return Ok(Socket::Tcp(tcp));
            }
            let stream = tls::handshake(tcp, &endpoint.domain, &endpoint.authority, versions, true).await?;
            Ok(Socket::Tls(stream))
        })
        .await?;
        Ok(Stream {
            socket,
            reader: StreamReader::new(LIMITS),
            inbox: Vec::new(),
            domain: endpoint.domain.clone(),
        })
    }

    /// Connects as an external component does, in clear text or over TLS. Its content is told as `jabber:client`.
    ///
    /// # Errors
    /// No connection, or a failed handshake.
    pub async fn connect_component(endpoint: &Endpoint, secure: bool) -> Result<Stream> {
        let address = if secure { endpoint.components_tls } else { endpoint.components };
        let address = address.context("no components may connect there")?;
        let tcp = within("connecting", async { Ok(TcpStream::connect(address).await?) }).await?;
        tcp.set_nodelay(true)?;
        let socket = if secure {
            let (domain, authority) = (&endpoint.domain, &endpoint.authority);
            let handshake = tls::handshake(tcp, domain, authority, Versions::Any, false);
            Socket::Tls(within("the TLS handshake", handshake).await?)
        } else {
            Socket::Tcp(tcp)
        };
        Ok(Stream {
            socket,
            reader: StreamReader::new(LIMITS).with_content(ns::COMPONENT_ACCEPT),
            inbox: Vec::new(),
            domain: endpoint.domain.clone(),
        })
    }

    /// Connects, secures the stream as asked for, and returns it with the features of the secured stream.
    ///
    /// # Errors
    /// Any step that fails.
    pub async fn open(
        endpoint: &Endpoint,
        security: Security,
        versions: Versions,
    ) -> Result<(Stream, Element)> {
        let mut stream = Stream::connect(endpoint, security, versions).await?;
        let features = stream.header().await?;
        if security != Security::StartTls {
            return Ok((stream, features));
        }
        ensure!(features.has_child("starttls", ns::TLS), "STARTTLS is not offered");
        let mut stream = stream.start_tls(endpoint, versions).await?;
        let features = stream.header().await?;
        Ok((stream, features))
    }

    /// Sends a stream header on a fresh reader and returns the features that follow the server's header.
    ///
    /// # Errors
    /// Anything but a header and features, such as a stream error.
    pub async fn header(&mut self) -> Result<Element> {
        self.header_in(None).await
    }

    /// As [`Stream::header`]; the header names that language as the default of what follows (RFC 6120 §4.7.4).
    ///
    /// # Errors
    /// As [`Stream::header`].
    pub async fn header_in(&mut self, lang: Option<&str>) -> Result<Element> {
        self.reader = StreamReader::new(LIMITS);
        let mut header = header_text(&self.domain);
        if let Some(lang) = lang {
            header.insert_str(header.len() - 1, &format!(" xml:lang='{lang}'"));
        }
        self.send(&header).await?;
        match self.event().await? {
            Event::Header(header) => {
                ensure!(
                    header.version.as_deref() == Some("1.0"),
                    "the header's version: {:?}",
                    header.version
                );
                ensure!(header.id.as_ref().is_some_and(|id| !id.is_empty()), "the header has no id");
            }
            other => bail!("expected the server's header, got {other:?}"),
        }
        let features = self.element().await?;
        ensure!(features.is("features", ns::STREAM), "expected features, got <{}/>", features.name());
        Ok(features)
    }

    /// Asks for STARTTLS and does the handshake (RFC 6120 §5.4.2).
    ///
    /// # Errors
    /// Refusal, or a handshake that fails.
    pub async fn start_tls(mut self, endpoint: &Endpoint, versions: Versions) -> Result<Stream> {
        self.send(&format!("<starttls xmlns='{}'/>", ns::TLS)).await?;
        let answer = self.element().await?;
        ensure!(answer.is("proceed", ns::TLS), "STARTTLS was answered with <{}/>", answer.name());
        ensure!(self.inbox.is_empty(), "bytes before the handshake");
        let Socket::Tcp(tcp) = self.socket else { bail!("STARTTLS inside TLS") };
        let handshake = tls::handshake(tcp, &endpoint.domain, &endpoint.authority, versions, false);
        self.socket = Socket::Tls(within("the TLS handshake", handshake).await?);
        Ok(self)
    }

    /// Whether the stream is under TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// The domain it speaks to.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `tls-exporter` and `tls-server-end-point` of the connection, as far as there are any.
    #[must_use]
    pub fn bindings(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match &self.socket {
            Socket::Tcp(_) => (None, None),
            Socket::Tls(stream) => {
                let connection = stream.get_ref().1;
                (tls::exporter(connection).ok(), tls::server_end_point(connection).ok())
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        within("sending", async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await?;
            Ok(())
        })
        .await
    }

    /// Sends text as it is.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.send_bytes(text.as_bytes()).await
    }

    /// The next event, within one step.
    ///
    /// # Errors
    /// Silence for too long, or XML that no server may send.
    pub async fn event(&mut self) -> Result<Event> {
        within("the next element", self.next()).await
    }

    /// The next event, however long it takes.
    ///
    /// # Errors
    /// XML that no server may send.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let mut input = self.inbox.as_slice();
            let event = self.reader.next(&mut input).context("the server sent bad XML")?;
            let consumed = self.inbox.len() - input.len();
            self.inbox.drain(..consumed);
            if let Some(event) = event {
                return Ok(event.into());
            }
            self.inbox.reserve(16 * 1024);
            // A reset is how a closing server sounds to a client that still writes.
            if !matches!(self.socket.read_buf(&mut self.inbox).await, Ok(1..)) {
                return Ok(Event::Eof);
            }
        }
    }

    /// The next event, which must be an element.
    ///
    /// # Errors
    /// Anything else, or silence for too long.
    pub async fn element(&mut self) -> Result<Element> {
        match self.event().await? {
            Event::Element(element) => Ok(element),
            other => bail!("expected an element, got {other:?}"),
        }
    }

    /// Takes it apart: the socket, its reader, and what was read but not parsed yet.
    #[must_use]
    pub fn into_parts(self) -> (Socket, StreamReader, Vec<u8>) {
        (self.socket, self.reader, self.inbox)
    }
}

/// A client's stream header for `domain`.
#[must_use]
pub fn header_text(domain: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{}' version='1.0'>",
        ns::CLIENT,
        ns::STREAM,
        escape_xml(domain)
    )
}
