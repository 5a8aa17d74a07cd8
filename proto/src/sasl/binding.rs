//! Channel binding: data that ties a login to its TLS connection (RFC 5056).

use std::fmt;

/// A type of channel binding (IANA "Channel-Binding Types", XEP-0440).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelBinding {
    /// RFC 9266: keying material exported from the connection itself.
    TlsExporter,
    /// RFC 5929 §4: hash of the server's certificate; survives a TLS proxy that holds it.
    TlsServerEndPoint,
}

impl ChannelBinding {
    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ChannelBinding::TlsExporter => "tls-exporter",
            ChannelBinding::TlsServerEndPoint => "tls-server-end-point",
        }
    }

    /// The type of that registered name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ChannelBinding> {
        [ChannelBinding::TlsExporter, ChannelBinding::TlsServerEndPoint]
            .into_iter()
            .find(|binding| binding.name() == name)
    }
}

/// What the transport knows of its finished TLS handshake.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// `tls-exporter` data, 32 octets: label `EXPORTER-Channel-Binding`, empty context. Only where the
    /// handshake is TLS 1.3, or 1.2 with the extended master secret (RFC 9266 §4.2).
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` data: hash of the certificate that was served (RFC 5929 §4.1).
    pub server_end_point: Option<Vec<u8>>,
}

impl TlsInfo {
    /// The data for a type of binding, if this connection has it.
    #[must_use]
    pub fn data(&self, binding: ChannelBinding) -> Option<&[u8]> {
        match binding {
            ChannelBinding::TlsExporter => self.exporter.as_deref(),
            ChannelBinding::TlsServerEndPoint => self.server_end_point.as_deref(),
        }
    }

    /// The types that this connection has data for, the stronger first.
    pub fn available(&self) -> impl Iterator<Item = ChannelBinding> + '_ {
        [ChannelBinding::TlsExporter, ChannelBinding::TlsServerEndPoint]
            .into_iter()
            .filter(|binding| self.data(*binding).is_some())
    }
}

// The exporter is secret to the two ends of the connection.
impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.available()).finish()
    }
}
