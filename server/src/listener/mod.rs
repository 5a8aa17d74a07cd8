//! Accepts connections: TCP, direct TLS, and HTTP with its WebSockets.
//!
//! | file     | what                                                        |
//! |----------|-------------------------------------------------------------|
//! | `tcp.rs` | accept loops, limits, the choice of an arbiter              |
//! | `tls.rs` | certificates, ALPN, channel-binding data                    |
//! | `web.rs` | HTTP requests of clients, up to the WebSocket               |

pub mod tcp;
pub mod tls;
pub mod web;
