//! Stanzas (RFC 6120 §8): a typed head over an immutable element.

pub mod error;
mod forged;
pub mod kind;
mod parse;
mod reply;
mod wire;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use minidom::Element;

use crate::jid::Jid;

pub use error::{ErrorType, StanzaCondition, StanzaError};
pub use kind::{IqType, Kind, MessageType, PresenceType};
pub use parse::ParseError;
pub use reply::error_for;
pub use wire::Broadcast;

/// A stanza: immutable, cheap to clone and to share between threads. A change is a new value.
///
/// The head (kind, addresses, id) is parsed once. **The head's addresses are the stanza's addresses**:
/// a stamped `from` or a recipient of a broadcast changes the head alone and shares the element, so
/// modules ask [`Stanza::from`] and [`Stanza::to`], never the element's attributes.
#[derive(Debug, Clone)]
pub struct Stanza {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    from: Option<Jid>,
    to: Option<Jid>,
    id: Option<Box<str>>,
    element: Arc<Element>,
    /// The bytes on a client's stream, made at most once however many receivers there are.
    wire: OnceLock<Bytes>,
}

impl Stanza {
    /// The kind with its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The sender.
    #[must_use]
    pub fn from(&self) -> Option<&Jid> {
        self.inner.from.as_ref()
    }

    /// The recipient.
    #[must_use]
    pub fn to(&self) -> Option<&Jid> {
        self.inner.to.as_ref()
    }

    /// The `id` attribute.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.inner.id.as_deref()
    }

    /// The element; for its addresses ask [`Stanza::from`] and [`Stanza::to`].
    #[must_use]
    pub fn element(&self) -> &Element {
        &self.inner.element
    }

    /// The first child element: the payload of an IQ (RFC 6120 §8.2.3).
    #[must_use]
    pub fn payload(&self) -> Option<&Element> {
        self.inner.element.children().next()
    }

    /// The same stanza from another address.
    #[must_use]
    pub fn with_from(&self, from: impl Into<Jid>) -> Stanza {
        self.with_addresses(Some(from.into()), self.inner.to.clone())
    }

    /// The same stanza to another address.
    #[must_use]
    pub fn with_to(&self, to: impl Into<Jid>) -> Stanza {
        self.with_addresses(self.inner.from.clone(), Some(to.into()))
    }

    /// The same stanza with one more child, behind the others.
    #[must_use]
    pub fn with_child(&self, child: Element) -> Stanza {
        let mut element = self.element().clone();
        element.append_child(child);
        let Inner { kind, from, to, id, .. } = &*self.inner;
        let (kind, from, to, id) = (*kind, from.clone(), to.clone(), id.clone());
        Stanza {
            inner: Arc::new(Inner { kind, from, to, id, element: Arc::new(element), wire: OnceLock::new() }),
        }
    }

    fn with_addresses(&self, from: Option<Jid>, to: Option<Jid>) -> Stanza {
        Stanza {
            inner: Arc::new(Inner {
                kind: self.inner.kind,
                from,
                to,
                id: self.inner.id.clone(),
                element: Arc::clone(&self.inner.element),
                wire: OnceLock::new(),
            }),
        }
    }

    /// The priority of an available presence, 0 where none is given (RFC 6121 §4.7.2.3); `None` for one
    /// that is no integer of −128..=127.
    #[must_use]
    pub fn priority(&self) -> Option<i8> {
        let text = self.inner.element.get_child("priority", crate::ns::CLIENT).map(Element::text);
        match text.as_deref().map(str::trim) {
            None | Some("") => Some(0),
            Some(text) => text.parse().ok(),
        }
    }
}
