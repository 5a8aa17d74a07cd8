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
    /// Attributes of one element, namespace declarations among them.
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
}

/// Namespace declarations in force at one place, over all levels. Each prefixed name is looked up
/// among them, so their number bounds the time that a hostile stanza takes.
pub(super) const BINDINGS: usize = 256;

/// Bytes of one name or one attribute value. The tokenizer reserves this much while it is inside an
/// element, and again at each reference such as `&lt;`, so it cannot be as large as a stanza.
pub(super) const TOKEN_BYTES: usize = 64 * 1024;
