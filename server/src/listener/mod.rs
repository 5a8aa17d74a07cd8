//! Accepts connections: TCP and direct TLS.

pub mod tls;
