//! PURE. One HTTP request to its answer: the opening handshake of a WebSocket (RFC 6455 §4.2, RFC 7395 §3.1),
//! host-meta, or a refusal.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Header, Status};
use ring::digest;

use super::host_meta;
use crate::config::Config;
use crate::metrics::WebAnswer;

/// Where streams are.
pub(super) const WEBSOCKET_PATH: &str = "/xmpp-websocket";
const HOST_META: &str = "/.well-known/host-meta";
const HOST_META_JSON: &str = "/.well-known/host-meta.json";

/// Most header fields of a request.
const MAX_FIELDS: usize = 64;

/// RFC 6455 §1.3.
const ACCEPT_KEY: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is sent back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: WebAnswer,
    pub(super) bytes: Vec<u8>,
    /// Frames of a WebSocket follow.
    pub(super) upgrade: Option<Upgrade>,
}

/// What is known of the client of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    pub(super) peer: IpAddr,
    pub(super) secured: bool,
    /// Bytes of the request.
    pub(super) head: usize,
}

impl Answer {
    pub(super) fn too_large() -> Answer {
        refusal(WebAnswer::Refused, "431 Request Header Fields Too Large", "")
    }

    pub(super) fn busy() -> Answer {
        refusal(WebAnswer::Refused, "503 Service Unavailable", "")
    }
}

/// The answer to the request at the beginning of `read`; `None` while its head is not complete. `proxied`: the peer is a
/// proxy that is believed.
pub(super) fn answer(config: &Config, read: &[u8], peer: IpAddr, proxied: bool) -> Option<Answer> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(read) {
        Ok(Status::Partial) => return None,
        Ok(Status::Complete(head)) => head,
        Err(httparse::Error::TooManyHeaders) => return Some(Answer::too_large()),
        Err(_) => return Some(refusal(WebAnswer::Refused, "400 Bad Request", "")),
    };
    let method = request.method.unwrap_or_default();
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let newest = request.version == Some(1);
    let fields = Fields(request.headers);
    // RFC 9112 §3.2
    let Some(host) = fields.one("host").or((!newest).then_some("")) else {
        return Some(refusal(WebAnswer::Refused, "400 Bad Request", ""));
    };
    Some(match path {
        WEBSOCKET_PATH if newest => websocket(config, method, &fields).map_or_else(
            |refused| refused,
            |key| {
                let (peer, secured) = if proxied { fields.forwarded(config, peer) } else { (peer, false) };
                accept(&key, Upgrade { peer, secured, head })
            },
        ),
        HOST_META | HOST_META_JSON => host_meta(config, method, path, host_of(host)),
        _ => refusal(WebAnswer::Refused, "404 Not Found", ""),
    })
}

/// Header fields of a request.
struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok())
            .map(str::trim)
    }

    /// The value of a field that may come once only.
    fn one(&self, name: &'static str) -> Option<&'a str> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { None } else { first }
    }

    fn has(&self, name: &'static str) -> bool {
        self.0.iter().any(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Whether a list has this word.
    fn lists(&self, name: &'static str, word: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
    }

    /// The client as the proxies in between tell it: the last address that is none of theirs, and whether TLS ends
    /// at the first of them.
    fn forwarded(&self, config: &Config, peer: IpAddr) -> (IpAddr, bool) {
        let list: Vec<&str> = self.all("x-forwarded-for").flat_map(|value| value.split(',')).collect();
        let mut client = peer;
        for text in list.into_iter().rev() {
            // What is no address was written by nobody who is to be believed.
            let Ok(address) = text.trim().parse() else { break };
            client = address;
            if !config.web.trusts(address) {
                break;
            }
        }
        (client, self.one("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")))
    }
}

/// The key of a right opening handshake.
fn websocket(config: &Config, method: &str, fields: &Fields<'_>) -> Result<String, Answer> {
    let refuse = |status, more| Err(refusal(WebAnswer::Refused, status, more));
    if method != "GET" {
        return refuse("405 Method Not Allowed", "Allow: GET\r\n");
    }
    if !fields.lists("upgrade", "websocket") || !fields.lists("connection", "upgrade") {
        return refuse("426 Upgrade Required", "Upgrade: websocket\r\n");
    }
    // RFC 6455 §4.4
    if fields.one("sec-websocket-version") != Some("13") {
        return refuse("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    }
    let key = fields.one("sec-websocket-key");
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) else {
        return refuse("400 Bad Request", "");
    };
    // RFC 7395 §3.1
    if !fields.lists("sec-websocket-protocol", "xmpp") {
        return refuse("400 Bad Request", "Sec-WebSocket-Protocol: xmpp\r\n");
    }
    if fields.has("origin") && !fields.one("origin").is_some_and(|origin| may_come_from(config, origin)) {
        return Err(refusal(WebAnswer::Origin, "403 Forbidden", ""));
    }
    Ok(key.to_owned())
}

/// Whether a page of this origin may open a stream (RFC 6455 §10.2). The host of the request says nothing here: a
/// browser can be made to call us by a name that is another's.
fn may_come_from(config: &Config, origin: &str) -> bool {
    let web = &config.web;
    if web.allowed_origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = host_of(authority);
    let own = web.websocket_url.as_deref().and_then(|url| url.split_once("://")).map(|(_, rest)| {
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        host_of(authority)
    });
    own.into_iter().chain(config.xmpp.domains.iter().map(String::as_str)).any(|own| is_same_host(own, host))
}

/// Whether two names are one host. Browsers name an internationalised domain by its A-labels (RFC 5890 §2.3.2.1), XMPP by
/// its U-labels.
pub(super) fn is_same_host(own: &str, host: &str) -> bool {
    own.eq_ignore_ascii_case(host) || (!own.is_ascii() && a_label(own).eq_ignore_ascii_case(host))
}

/// A domain in A-labels; as it is, where it has none.
pub(super) fn a_label(domain: &str) -> Cow<'_, str> {
    idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::EMPTY).unwrap_or(Cow::Borrowed(domain))
}

/// The host of `host:port`; of `[::1]:port` with its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn accept(key: &str, upgrade: Upgrade) -> Answer {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_KEY);
    let accept = STANDARD.encode(hash.finish());
    let bytes = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    );
    Answer { kind: WebAnswer::WebSocket, bytes: bytes.into_bytes(), upgrade: Some(upgrade) }
}

/// XEP-0156: for all who ask, scripts of any page among them (§3).
fn host_meta(config: &Config, method: &str, path: &str, host: &str) -> Answer {
    let cors = "Access-Control-Allow-Origin: *\r\n";
    if method == "OPTIONS" {
        let more = format!("{cors}Access-Control-Allow-Methods: GET, HEAD\r\n");
        return reply(WebAnswer::HostMeta, "204 No Content", &more, "", "");
    }
    if !matches!(method, "GET" | "HEAD") {
        return refusal(WebAnswer::Refused, "405 Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n");
    }
    let links = host_meta::links(config, host);
    if links.is_empty() {
        return refusal(WebAnswer::Refused, "404 Not Found", cors);
    }
    let (kind, body) = match path {
        HOST_META_JSON => ("application/json", host_meta::jrd(&links)),
        _ => ("application/xrd+xml; charset=utf-8", host_meta::xrd(&links)),
    };
    let mut answer = reply(WebAnswer::HostMeta, "200 OK", cors, kind, &body);
    if method == "HEAD" {
        answer.bytes.truncate(answer.bytes.len() - body.len());
    }
    answer
}

fn refusal(kind: WebAnswer, status: &str, more: &str) -> Answer {
    reply(kind, status, more, "text/plain", &format!("{status}\n"))
}

/// One answer a connection: what is behind the request is not looked at.
fn reply(kind: WebAnswer, status: &str, more: &str, content: &str, body: &str) -> Answer {
    let mut head =
        format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nX-Content-Type-Options: nosniff\r\n");
    if !content.is_empty() {
        head += &format!("Content-Type: {content}\r\nContent-Length: {}\r\n", body.len());
    }
    Answer { kind, bytes: format!("{head}\r\n{body}").into_bytes(), upgrade: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    /// The example of RFC 6455 §1.3.
    const UPGRADE: &str = "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost:5281\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: foo, xmpp\r\n\r\n";

    fn config() -> Config {
        let mut config = Config::default();
        config.listen.web_tls = vec!["0.0.0.0:5281".parse().unwrap()];
        config
    }

    fn text(answer: &Answer) -> String {
        String::from_utf8(answer.bytes.clone()).unwrap()
    }

    fn status(config: &Config, request: &str) -> u16 {
        let answer = answer(config, request.as_bytes(), PEER, false).unwrap();
        text(&answer).split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_opening_handshake_of_rfc_6455() {
        let read = format!("{UPGRADE}more");
        let answer = answer(&config(), read.as_bytes(), PEER, false).unwrap();
        assert_eq!(answer.upgrade, Some(Upgrade { peer: PEER, secured: false, head: UPGRADE.len() }));
        let text = text(&answer);
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        assert!(text.ends_with("\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"), "{text}");
        for end in 0..UPGRADE.len() {
            assert!(super::answer(&config(), &UPGRADE.as_bytes()[..end], PEER, false).is_none());
        }
    }

    #[test]
    fn what_is_no_opening_handshake_is_refused() {
        for (from, to, expected) in [
            ("xmpp\r\n", "xmp\r\n", 400),
            ("Sec-WebSocket-Protocol: foo, xmpp\r\n", "", 400),
            ("Version: 13", "Version: 8", 426),
            ("Upgrade: websocket\r\n", "", 426),
            ("keep-alive, Upgrade", "keep-alive", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
            ("GET", "POST", 405),
            ("Host: localhost:5281\r\n", "", 400),
            ("HTTP/1.1", "HTTP/1.0", 404),
            ("/xmpp-websocket", "/metrics", 404),
            ("/xmpp-websocket", "/readyz", 404),
            ("Host:", "Ho st:", 400),
        ] {
            assert_eq!(status(&config(), &UPGRADE.replacen(from, to, 1)), expected, "{from} -> {to}");
        }
        let many: String = (0..65).map(|number| format!("x{number}: y\r\n")).collect();
        assert_eq!(status(&config(), &format!("GET / HTTP/1.1\r\n{many}\r\n")), 431);
    }

    #[test]
    fn pages_of_other_hosts_may_not_open_streams() {
        let mut config = config();
        config.web.allowed_origins = vec!["https://web.example".into()];
        config.web.websocket_url = Some("wss://chat.example:8443/x".into());
        config.xmpp.domains.push("bücher.example".into());
        let with = |origin: &str| UPGRADE.replacen("Host:", &format!("Origin: {origin}\r\nHost:"), 1);
        for (origin, expected) in [
            ("https://web.example", 101),
            ("https://web.example:8443", 403),
            ("https://localhost", 101),
            ("http://localhost:8080", 101),
            ("https://chat.example", 101),
            ("https://xn--bcher-kva.example", 101),
            ("https://xn--bcher-kvb.example", 403),
            ("https://localhost.evil.example", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("\u{e9}", 403),
            ("https://localhost\r\nOrigin: https://evil.example", 403),
        ] {
            assert_eq!(status(&config, &with(origin)), expected, "{origin}");
        }
        // Its own host is what an attacker's page would be reached by (DNS rebinding).
        let rebound = with("https://evil.example").replacen("Host: localhost:5281", "Host: evil.example", 1);
        assert_eq!(status(&config, &rebound), 403);
        config.web.allowed_origins = vec!["*".into()];
        assert_eq!(status(&config, &with("null")), 101);
    }

    #[test]
    fn a_proxy_that_is_trusted_tells_who_the_client_is() {
        let mut config = config();
        config.web.trusted_proxies = vec!["10.0.0.0/8".into()];
        let told = |fields: &str, proxied| {
            let request = UPGRADE.replacen("Host:", &format!("{fields}Host:"), 1);
            let upgrade = answer(&config, request.as_bytes(), PEER, proxied).unwrap().upgrade.unwrap();
            (upgrade.peer.to_string(), upgrade.secured)
        };
        let fields = "X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\nX-Forwarded-For: 10.1.1.1\r\n\
             X-Forwarded-Proto: https\r\n";
        assert_eq!(told(fields, true), ("203.0.113.9".to_owned(), true));
        assert_eq!(told(fields, false), (PEER.to_string(), false));
        assert_eq!(told("", true), (PEER.to_string(), false));
        assert_eq!(told("X-Forwarded-For: x, 10.1.1.1\r\n", true), ("10.1.1.1".to_owned(), false));
        assert!(!told("X-Forwarded-Proto: http\r\n", true).1);
    }

    #[test]
    fn host_meta_is_for_all() {
        let get = |path: &str| {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: LOCALHOST\r\nOrigin: https://x.example\r\n\r\n");
            text(&answer(&config(), request.as_bytes(), PEER, false).unwrap())
        };
        for (path, kind) in [
            ("/.well-known/host-meta", "application/xrd+xml; charset=utf-8"),
            ("/.well-known/host-meta.json?resource=x", "application/json"),
        ] {
            let answer = get(path);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"), "{answer}");
            assert!(answer.contains(&format!("\r\nContent-Type: {kind}\r\n")), "{answer}");
            assert!(answer.contains("wss://localhost:5281/xmpp-websocket"), "{answer}");
        }
        let ask = |method: &str| format!("{method} /.well-known/host-meta HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&config(), &ask("OPTIONS")), 204);
        assert_eq!(status(&config(), &ask("POST")), 405);
        assert_eq!(status(&config(), &ask("GET").replace("1.1", "1.0").replace("Host: a\r\n", "")), 200);
        let head = answer(&config(), ask("HEAD").as_bytes(), PEER, false).unwrap();
        assert!(text(&head).ends_with("\r\n\r\n") && text(&head).contains("Content-Length: "));
        // Nothing to tell.
        assert_eq!(status(&Config::default(), &ask("GET")), 404);
    }
}
