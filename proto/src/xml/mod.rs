//! Bytes to elements and back, with limits (RFC 6120 §4, §11).

pub use minidom::Element;
