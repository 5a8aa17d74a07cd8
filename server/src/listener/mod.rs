//! Accepts connections: TCP and direct TLS.
//!
//! | file     | what                                                        |
//! |----------|-------------------------------------------------------------|
//! | `tcp.rs` | accept loops, limits, the choice of an arbiter              |
//! | `tls.rs` | certificates, ALPN, channel-binding data                    |

pub mod tcp;
pub mod tls;
