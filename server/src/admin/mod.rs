//! The HTTP door: metrics and health.

mod health;
mod http;
pub mod probe;

pub use health::{Check, Health};
pub use http::serve;
