//! Accepts connections: TCP and direct TLS.
