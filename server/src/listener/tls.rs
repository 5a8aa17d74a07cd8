//! TLS of the client-to-server listeners: certificates, ALPN, channel-binding data.
