//! Bytes to elements and back, with limits (RFC 6120 §4, §11).
//!
//! [`reader::StreamReader`] takes the bytes of one stream as they come and gives its header, its
//! first-level elements and its end. [`writer`] does the reverse. [`build`] makes attributes short to
//! write: `Element::builder("iq", ns::CLIENT).set(name!("type"), "result")`.

pub use minidom::Element;
/// An attribute name, checked at compile time: `name!("to")`.
pub use rxml::xml_ncname as name;

pub mod build;
pub mod error;
pub mod limits;
#[cfg(test)]
mod properties;
pub mod reader;
#[cfg(test)]
mod refusals;
mod scope;
pub mod writer;
