//! PURE. `/.well-known/host-meta` (XEP-0156, RFC 6415): where a browser finds this server.

use althing_proto::xml::writer::write_attribute;
use serde_json::json;

use super::request::{WEBSOCKET_PATH, a_label, is_same_host};
use crate::config::Config;

/// XEP-0156 §2.1.
const WEBSOCKET: &str = "urn:xmpp:alt-connections:websocket";

/// Ways to connect, each with its link relation. For a request to `host`, which is believed only where it is a domain
/// of this server.
pub(super) fn links(config: &Config, host: &str) -> Vec<(&'static str, String)> {
    websocket_url(config, host).map(|url| (WEBSOCKET, url)).into_iter().collect()
}

fn websocket_url(config: &Config, host: &str) -> Option<String> {
    if let Some(url) = &config.web.websocket_url {
        return Some(url.clone());
    }
    let port = config.listen.web_tls.first()?.port();
    let domains = &config.xmpp.domains;
    let domain = domains.iter().find(|domain| is_same_host(domain, host)).or(domains.first())?;
    // As browsers know it.
    Some(format!("wss://{}:{port}{WEBSOCKET_PATH}", a_label(domain)))
}

/// RFC 6415 §3: the XML form, which each server must have.
pub(super) fn xrd(links: &[(&str, String)]) -> String {
    let mut out = b"<?xml version='1.0' encoding='utf-8'?>\n<XRD".to_vec();
    write_attribute("xmlns", "http://docs.oasis-open.org/ns/xri/xrd-1.0", &mut out);
    out.extend_from_slice(b">\n");
    for (rel, href) in links {
        out.extend_from_slice(b"  <Link");
        write_attribute("rel", rel, &mut out);
        write_attribute("href", href, &mut out);
        out.extend_from_slice(b"/>\n");
    }
    out.extend_from_slice(b"</XRD>\n");
    String::from_utf8(out).unwrap_or_default()
}

/// RFC 6415 appendix A: the JSON form.
pub(super) fn jrd(links: &[(&str, String)]) -> String {
    let links: Vec<_> = links.iter().map(|(rel, href)| json!({ "rel": rel, "href": href })).collect();
    json!({ "links": links }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.xmpp.domains = vec!["a.example".into(), "b.example".into()];
        config.listen.web_tls = vec!["0.0.0.0:5281".parse().unwrap()];
        config
    }

    fn url(config: &Config, host: &str) -> Option<String> {
        links(config, host).pop().map(|(_, url)| url)
    }

    #[test]
    fn the_url_is_the_configured_one_or_the_domain_with_the_port() {
        let mut config = config();
        assert_eq!(url(&config, "B.example").unwrap(), "wss://b.example:5281/xmpp-websocket");
        // Whoever asks does not say where others are sent.
        assert_eq!(url(&config, "evil.example").unwrap(), "wss://a.example:5281/xmpp-websocket");
        config.xmpp.domains.push("bücher.example".into());
        let international = "wss://xn--bcher-kva.example:5281/xmpp-websocket";
        assert_eq!(url(&config, "xn--bcher-kva.example").unwrap(), international);
        config.web.websocket_url = Some("wss://chat.example/ws".into());
        assert_eq!(url(&config, "b.example").unwrap(), "wss://chat.example/ws");
        config.web.websocket_url = None;
        config.listen.web_tls.clear();
        assert_eq!(url(&config, "a.example"), None);
    }

    #[test]
    fn both_forms_say_the_same() {
        let links = links(&config(), "a.example");
        let xml: minidom::Element = xrd(&links).parse().unwrap();
        let link = xml.get_child("Link", "http://docs.oasis-open.org/ns/xri/xrd-1.0").unwrap();
        assert_eq!(link.attr("rel"), Some("urn:xmpp:alt-connections:websocket"));
        assert_eq!(link.attr("href"), Some("wss://a.example:5281/xmpp-websocket"));
        let json: serde_json::Value = serde_json::from_str(&jrd(&links)).unwrap();
        assert_eq!(json["links"][0]["rel"], "urn:xmpp:alt-connections:websocket");
        assert_eq!(json["links"][0]["href"], "wss://a.example:5281/xmpp-websocket");
    }
}
