//! How much XML a stranger may send before it is refused (RFC 6120 §13.12).

/// Bounds on one first-level element of a stream, and on the stream header.
///
/// Each is inclusive: a stanza at the bound is read, one past it ends the stream with
/// `policy-violation` (RFC 6120 §4.9.3.14). They hold while the stanza arrives, so an unfinished one
/// costs no more than a finished one. Together they bound memory both ways: `stanza_bytes` bounds
/// names, values and text; `children` bounds the tree, whose nodes cost far more than their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the `<` that opens the element to the `>` that closes it. For the header: from the
    /// XML declaration, if there is one, to the end of the start tag.
    pub stanza_bytes: usize,
    /// Levels of elements. The stanza itself is the first.
    pub depth: usize,
    /// Attributes of one element, namespace declarations among them. And, over the whole stanza,
    /// attributes with a prefix other than `xml`: each may cost a declaration when it is written.
    pub attributes: usize,
    /// Elements below the stanza, over all levels. Text nodes are not counted: there can be at most
    /// two more of them than twice as many.
    pub children: usize,
}

impl Limits {
    /// For a peer that nobody has vouched for yet. RFC 6120 §13.12 wants at least 10,000 bytes.
    pub const BEFORE_LOGIN: Limits =
        Limits { stanza_bytes: 10 * 1024, depth: 64, attributes: 64, children: 4096 };

    /// For a peer that has logged in.
    pub const AFTER_LOGIN: Limits =
        Limits { stanza_bytes: 256 * 1024, depth: 64, attributes: 64, children: 4096 };

    /// For XML that this server wrote itself: from storage, or from another node. Written anew, an
    /// element read within [`AFTER_LOGIN`](Self::AFTER_LOGIN) can be larger than it was, for each of
    /// its parts then declares its own namespace and characters are escaped that need not have been;
    /// and the server wraps stanzas, or lists many things in one. This is room for both.
    pub const OWN: Limits =
        Limits { stanza_bytes: 16 * 1024 * 1024, depth: 96, attributes: 4096, children: 65_536 };
}

/// Namespace declarations in force at one place, over all levels. Each prefixed name is looked up
/// among them, so their number bounds the time that a hostile stanza takes.
pub(super) const BINDINGS: usize = 256;

/// Bytes of one namespace name. Every element holds a copy of its own, so that without this bound a long
/// one, declared once and used by thousands of elements, would fill memory.
pub(super) const NAMESPACE_BYTES: usize = 256;

/// Bytes of one name or one attribute value. The tokenizer reserves this much while it is inside an
/// element, and again at each reference such as `&lt;`, so it cannot be as large as a stanza.
pub(super) const TOKEN_BYTES: usize = 64 * 1024;
