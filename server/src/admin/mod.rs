//! The operator's doors: metrics and health over HTTP, requests over a Unix socket.

mod backend;
mod client;
mod health;
mod http;
mod line;
pub mod probe;
pub mod protocol;
mod restore;
mod socket;
pub mod status;

pub use backend::{AdminBackend, NodeAdmin, account_address};
pub use client::AdminClient;
pub use health::{Check, Health};
pub use http::serve;
pub use socket::AdminSocket;
