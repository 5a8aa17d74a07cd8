//! Sections `[listen]`, `[tls]` and `[http]`: the doors of the node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::{section, words};

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

section! {
    /// Addresses the node listens on. IPv6 addresses stand in brackets: `[::]:5222`.
    Listen = "listen" {
        /// Client-to-server streams that begin in clear text and are secured with STARTTLS
        /// (RFC 6120 §5). May be empty.
        c2s: Vec<SocketAddr> = vec![any(5222)];
        /// Client-to-server streams over direct TLS (XEP-0368). May be empty.
        c2s_tls: Vec<SocketAddr> = vec![any(5223)];
        /// HTTPS for clients in browsers: WebSocket and host-meta, see `[web]`. May be empty. A port of its own, usually
        /// 5281 or 443: metrics and probes are not seen there.
        web_tls: Vec<SocketAddr> = Vec::new();
        /// The same without TLS: on loopback, or behind a proxy of `web.trusted_proxies` that ends TLS. May be empty.
        web: Vec<SocketAddr> = Vec::new();
        /// Metrics and health probes over HTTP, without TLS and without login: keep it inside your network.
        http: SocketAddr = any(5280);
    }
}

words! {
    /// TLS versions that can be the oldest one accepted.
    TlsVersion {
        /// TLS 1.2 (RFC 5246) and newer.
        V1_2 = "1.2",
        /// TLS 1.3 (RFC 8446) and newer.
        V1_3 = "1.3",
    }
}

section! {
    /// The certificate that clients see. One certificate names all domains of this node.
    Tls = "tls" {
        /// PEM file with the certificate and after it the chain to the certificate authority.
        /// Needed as long as a listener speaks TLS.
        certificate: Option<PathBuf> = None, example "\"/etc/althing/tls/tls.crt\"";
        /// PEM file with the private key of the certificate. Only the node's user should be able to read it.
        key: Option<PathBuf> = None, example "\"/etc/althing/tls/tls.key\"";
        /// The oldest TLS version that is accepted.
        min_version: TlsVersion = TlsVersion::V1_2;
    }
}

section! {
    /// Bounds of the HTTP door at `listen.http`.
    Http = "http" {
        /// Most connections at the same time; more wait in the kernel's queue.
        connections: usize = 256, in 1..=65536;
        /// Seconds that a client has to send the head of its request.
        request_timeout_s: u64 = 5, in 1..=300;
        /// Seconds that an idle connection is kept for the next request.
        keep_alive_s: u64 = 30, in 1..=3600;
    }
}
