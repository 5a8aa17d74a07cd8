//! Section `[web]`: what browsers meet at `listen.web` and `listen.web_tls`.

use std::net::IpAddr;

use super::Config;
use super::section::section;
use super::validate::{Finding, finding};

section! {
    /// What browsers meet at `listen.web` and `listen.web_tls`: WebSocket streams (RFC 7395) at `/xmpp-websocket`,
    /// and `/.well-known/host-meta`, which says where that is (XEP-0156).
    Web = "web" {
        /// Origins of web pages whose scripts may open a WebSocket, such as `https://chat.example.org`. Those on the
        /// hosts of `xmpp.domains` and of `websocket_url` may anyway; `*` lets all. Clients that are no browser
        /// tell no origin and may always.
        allowed_origins: Vec<String> = Vec::new();
        /// Where clients find the WebSocket, for host-meta. Without it: the domain, with the port of
        /// `listen.web_tls`.
        websocket_url: Option<String> = None, like "\"wss://chat.example.org/xmpp-websocket\"";
        /// Addresses or networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
        /// believed at `listen.web`: with `https` there, clients may log in as if TLS ended here.
        trusted_proxies: Vec<String> = Vec::new();
    }
}

impl Web {
    /// Whether `peer` is one of the proxies that are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().filter_map(|text| Network::parse(text)).any(|network| network.has(peer))
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`.
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Network { address, prefix })
    }

    fn has(self, other: IpAddr) -> bool {
        let differing = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u32::from(own) ^ u32::from(other)).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own) ^ u128::from(other)).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.prefix)
    }
}

/// Scheme and authority, with nothing behind them.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    authority.is_some_and(|authority| {
        !authority.is_empty() && !authority.contains(|c: char| c == '/' || c.is_whitespace())
    })
}

impl Config {
    pub(super) fn check_web(&self, found: &mut Vec<Finding>) {
        let web = &self.web;
        for origin in web.allowed_origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
            let allowed = "\"*\", or scheme and host, such as \"https://chat.example.org\"";
            found.push(finding("web.allowed_origins", format!("\"{origin}\" is no origin"), allowed));
        }
        if let Some(url) = &web.websocket_url
            && !url.strip_prefix("wss://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        {
            // XEP-0156 §2.2: clients may use no other.
            found.push(finding("web.websocket_url", format!("\"{url}\" is none"), "a URL with wss://"));
        }
        for proxy in web.trusted_proxies.iter().filter(|proxy| Network::parse(proxy).is_none()) {
            found.push(finding(
                "web.trusted_proxies",
                format!("\"{proxy}\" is no address"),
                "IP addresses, or networks such as 10.0.0.0/8",
            ));
        }
        if web.trusted_proxies.is_empty() {
            for address in self.listen.web.iter().filter(|address| !address.ip().is_loopback()) {
                found.push(finding(
                    "listen.web",
                    format!("{address} can be reached by others, without TLS"),
                    "loopback addresses, as long as web.trusted_proxies is empty",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_their_addresses() {
        let web = |proxies: &[&str]| Web {
            trusted_proxies: proxies.iter().map(|proxy| (*proxy).to_owned()).collect(),
            ..Web::default()
        };
        let proxies = web(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]);
        for (peer, trusted) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.1.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.trusts(peer.parse().unwrap()), trusted, "{peer}");
        }
        assert!(!web(&[]).trusts("127.0.0.1".parse().unwrap()));
        assert!(web(&["0.0.0.0/0"]).trusts("127.0.0.1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "x", "10.0.0.0/", "2001:db8::/129"] {
            assert_eq!(Network::parse(bad), None);
        }
    }

    #[test]
    fn what_cannot_be_used_is_found() {
        let mut config = Config::default();
        config.web.allowed_origins = vec!["*".into(), "https://a.example:8443".into(), "a.example".into()];
        config.web.websocket_url = Some("ws://a.example/".into());
        config.web.trusted_proxies = vec!["proxy".into()];
        let mut found = Vec::new();
        config.check_web(&mut found);
        let keys: Vec<&str> = found.iter().map(|finding| finding.key.as_str()).collect();
        assert_eq!(keys, ["web.allowed_origins", "web.websocket_url", "web.trusted_proxies"]);
    }

    #[test]
    fn plain_http_stays_on_loopback_or_behind_a_proxy() {
        let mut config = Config::default();
        config.listen.web = vec!["127.0.0.1:5282".parse().unwrap(), "0.0.0.0:5282".parse().unwrap()];
        let mut found = Vec::new();
        config.check_web(&mut found);
        assert_eq!(found.len(), 1);
        assert!(found[0].what().starts_with("0.0.0.0:5282"));
        config.web.trusted_proxies = vec!["10.0.0.1".into()];
        found.clear();
        config.check_web(&mut found);
        assert!(found.is_empty());
    }
}
