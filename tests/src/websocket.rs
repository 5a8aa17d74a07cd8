//! A WebSocket client of its own making (RFC 6455, RFC 7395): frames can be sent that no library would send.

use std::net::SocketAddr;

use althing_proto::ns;
use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deadline::within;
use crate::endpoint::Endpoint;
use crate::login::Account;
use crate::random;
use crate::socket::Socket;
use crate::tls::{self, Versions};

/// `listen.web_tls` and `listen.web` of test nodes.
pub const WEB_TLS: u16 = 5281;
/// Without TLS.
pub const WEB: u16 = 5282;
/// Where streams are.
pub const PATH: &str = "/xmpp-websocket";

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The closing handshake with its code.
    Close(u16),
    /// The connection is closed.
    Eof,
}

/// A connection to a WebSocket server.
pub struct WebSocket {
    socket: Socket,
    inbox: Vec<u8>,
    domain: String,
}

/// A connection to an HTTP port for clients, with nothing said on it yet.
///
/// # Errors
/// No connection, or a failed handshake.
pub async fn connect(endpoint: &Endpoint, secure: bool) -> Result<Socket> {
    within("connecting", async {
        let address = SocketAddr::new(endpoint.c2s.ip(), if secure { WEB_TLS } else { WEB });
        let tcp = TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))?;
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(Socket::Tcp(tcp));
        }
        let stream = tls::handshake(tcp, &endpoint.domain, &endpoint.authority, Versions::Any, false).await?;
        Ok(Socket::Tls(stream))
    })
    .await
}

/// Asks for something by one request with these header fields; returns status, head and body.
///
/// # Errors
/// No connection, or no HTTP.
pub async fn ask(
    endpoint: &Endpoint,
    secure: bool,
    path: &str,
    fields: &str,
) -> Result<(u16, String, String)> {
    let mut socket = connect(endpoint, secure).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", endpoint.domain);
    within(path, async {
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // A server that closes without the end of TLS has said all the same what it had to say.
        let _ = socket.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        Ok((status, head.to_owned(), body.to_owned()))
    })
    .await
}

/// Header fields of a right opening handshake.
#[must_use]
pub fn handshake_fields() -> String {
    let key = BASE64.encode(&random::hex(8).as_bytes()[..16]);
    format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: xmpp\r\n"
    )
}

impl WebSocket {
    /// Connects and opens a WebSocket; `more` are further header fields.
    ///
    /// # Errors
    /// No connection, or an answer that opens none.
    pub async fn open(endpoint: &Endpoint, secure: bool, more: &str) -> Result<WebSocket> {
        let mut socket = connect(endpoint, secure).await?;
        let fields = handshake_fields();
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n{fields}{more}\r\n", endpoint.domain);
        let head = within("the opening handshake", async {
            socket.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await?);
            }
            Ok(String::from_utf8(head)?)
        })
        .await?;
        ensure!(head.starts_with("HTTP/1.1 101 "), "no WebSocket: {head}");
        ensure!(head.contains("Sec-WebSocket-Protocol: xmpp\r\n"), "another subprotocol: {head}");
        Ok(WebSocket { socket, inbox: Vec::new(), domain: endpoint.domain.clone() })
    }

    /// Sends one frame; `first` is its first byte, 0x81 for a whole text.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..=125) => frame.push(0x80 | length.to_be_bytes()[1]),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&u64::try_from(payload.len())?.to_be_bytes());
            }
        }
        let mask = [0x5A, 0x01, 0xC3, 0x96];
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.send_bytes(&frame).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        within("sending", async {
            self.socket.write_all(bytes).await?;
            Ok(self.socket.flush().await?)
        })
        .await
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.send_frame(0x81, text.as_bytes()).await
    }

    /// What comes next.
    ///
    /// # Errors
    /// Silence for too long, or frames that no server may send.
    pub async fn recv(&mut self) -> Result<Message> {
        within("a message", async {
            loop {
                if let Some(message) = self.take()? {
                    return Ok(message);
                }
                let mut chunk = [0; 4096];
                match self.socket.read(&mut chunk).await {
                    Ok(0) | Err(_) => return Ok(Message::Eof),
                    Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                }
            }
        })
        .await
    }

    fn take(&mut self) -> Result<Option<Message>> {
        let [first, length, rest @ ..] = self.inbox.as_slice() else { return Ok(None) };
        let (width, length) = match (length, rest) {
            (127, [a, b, c, d, e, f, g, h, ..]) => (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
            (126 | 127, _) => return Ok(None),
            (short, _) => (0, u64::from(*short)),
        };
        let end = 2 + width + usize::try_from(length)?;
        let Some(payload) = self.inbox.get(2 + width..end) else { return Ok(None) };
        let message = match first {
            0x81 => Message::Text(String::from_utf8(payload.to_vec())?),
            0x8A => Message::Pong(payload.to_vec()),
            0x88 => Message::Close(u16::from_be_bytes(payload.try_into().context("no code")?)),
            other => bail!("a frame that begins with {other:02x}"),
        };
        self.inbox.drain(..end);
        Ok(Some(message))
    }

    /// The element of the next message: it stands on its own.
    ///
    /// # Errors
    /// Whatever is no element.
    pub async fn element(&mut self) -> Result<Element> {
        match self.recv().await? {
            Message::Text(text) => text.parse().with_context(|| format!("no document: {text}")),
            other => bail!("expected an element, got {other:?}"),
        }
    }

    /// The next element that `wanted` says yes to; others before it are dropped.
    ///
    /// # Errors
    /// As [`WebSocket::element`].
    pub async fn element_until(&mut self, wanted: impl Fn(&Element) -> bool) -> Result<Element> {
        loop {
            let element = self.element().await?;
            if wanted(&element) {
                return Ok(element);
            }
        }
    }

    /// Begins a stream; returns the features.
    ///
    /// # Errors
    /// Another answer.
    pub async fn begin(&mut self) -> Result<Element> {
        let open = format!("<open xmlns='{}' to='{}' version='1.0'/>", ns::FRAMING, self.domain);
        self.send(&open).await?;
        let answer = self.element().await?;
        ensure!(answer.is("open", ns::FRAMING), "no <open/>: {answer:?}");
        let features = self.element().await?;
        ensure!(features.is("features", ns::STREAM), "no features: {features:?}");
        Ok(features)
    }

    /// Logs in by PLAIN and binds; returns the full JID.
    ///
    /// # Errors
    /// Any step that fails.
    pub async fn log_in(&mut self, account: &Account) -> Result<String> {
        self.begin().await?;
        let data = BASE64.encode(format!("\0{}\0{}", account.user, account.password));
        self.send(&format!("<auth xmlns='{}' mechanism='PLAIN'>{data}</auth>", ns::SASL)).await?;
        let answer = self.element().await?;
        ensure!(answer.is("success", ns::SASL), "no success: {answer:?}");
        self.begin().await?;
        self.send(&format!("<iq xmlns='{}' type='set' id='b'><bind xmlns='{}'/></iq>", ns::CLIENT, ns::BIND))
            .await?;
        let answer = self.element().await?;
        let jid = answer.get_child("bind", ns::BIND).and_then(|bind| bind.get_child("jid", ns::BIND));
        Ok(jid.context("no resource was bound")?.text())
    }
}
