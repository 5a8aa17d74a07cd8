//! One file a XEP, one registry line each. CONTRIBUTING.md, "Add a XEP", is the recipe.

/// Makes of one line each: the `mod` of a module, and its place in [`REGISTRY`].
macro_rules! modules {
    ($($visibility:vis $name:ident,)*) => {
        $($visibility mod $name;)*

        /// Every module, in the order in which each stage asks them.
        pub const REGISTRY: &[&dyn Module] = &[$(&$name::MODULE,)*];
    };
}

modules! {
    // XEP-0016 §2.2 rule 4: before all other rules.
    blocking,
    reporting,
    privacy,
    invisible,
    presence,
    roster,
    session,
    stanza_id,
    carbons,
    archive,
    offline,
    offline_retrieval,
    offline_batch,
    receipts,
    push,
    register,
    private,
    vcard,
    vcard_avatar,
    last,
    search,
    disco,
    caps,
    ecaps2,
    contact,
    services,
    multicast,
    pub commands,
    admin,
    statistics,
    stream_management,
    client_state,
    ping,
    version,
    time,
}

pub use commands::CommandSessions;
pub use disco::{Capabilities, Discovered, info, is_info};
pub use push::{Pushes, notify as push};
pub use register::{Limiter, before_login, remove_account};
pub use reporting::Reports;
pub use roster::missed_pushes;
pub use search::Searches;
pub use services::ExternalServices;
pub use statistics::of_node as figures_of_node;
pub use vcard_avatar::{LOGIN_DOCUMENTS, avatar};

use minidom::Element;

use althing_proto::disco::{Identity, Item};
use althing_proto::form::Form;
use althing_proto::stanza::Stanza;

use commands::command::Command;

use crate::aside::Capacity;
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, Verdict, View};
use crate::statistics::Statistic;

/// What a module implements: shown in the README's table, in logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The module's name: its file's.
    pub name: &'static str,
    /// The specification: `XEP-0199`, `RFC 6121 §2`.
    pub document: &'static str,
    /// The version of a XEP; empty for an RFC.
    pub version: &'static str,
    /// The specification's title.
    pub title: &'static str,
}

/// A feature that service discovery lists (XEP-0030 §3.1), and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The value of `var`.
    pub var: &'static str,
    /// [`At::SERVER`], [`At::OWN_ACCOUNT`] or both.
    pub at: At,
}

/// A part of XMPP. It decides and returns effects; it never acts. All methods but the first have defaults.
pub trait Module: Send + Sync {
    /// What it implements.
    fn spec(&self) -> Spec;

    /// The stanzas that its [`Module::process`] wants to see.
    fn interests(&self) -> &'static [Interest] {
        &[]
    }

    /// What service discovery lists.
    fn features(&self, _view: &View<'_>) -> Vec<Feature> {
        Vec::new()
    }

    /// What a place is, beside what others say of it (XEP-0030 §3.1).
    fn identities(&self, _view: &View<'_>) -> Vec<(At, Identity)> {
        Vec::new()
    }

    /// Further information on a place, as forms with a `FORM_TYPE` (XEP-0128). It may not differ from one asker to
    /// another, nor from one moment to the next: what the server can do is hashed once.
    fn extensions(&self, _view: &View<'_>) -> Vec<(At, Form)> {
        Vec::new()
    }

    /// Items of the place that a packet asks for its items (XEP-0030 §4.1).
    fn items(&self, _packet: &Packet, _view: &View<'_>) -> Vec<Item> {
        Vec::new()
    }

    /// What it knows of `node` of the place that a packet asks (XEP-0030 §3.2, §4.2); `None` for a node that is not
    /// its own. [`is_info`] says what is asked for.
    fn discover(&self, _packet: &Packet, _node: &str, _view: &View<'_>) -> Option<Discovered> {
        None
    }

    /// Commands that people may run (XEP-0050), as they are listed.
    fn commands(&self) -> &'static [&'static dyn Command] {
        &[]
    }

    /// What the stream's features list after login (RFC 6120 §4.3.2).
    fn stream_features(&self) -> Vec<Element> {
        Vec::new()
    }

    /// The bounds of the queue for what it does aside ([`Outcome::Aside`]).
    fn capacity(&self) -> Capacity {
        Capacity::default()
    }

    /// Figures of its own for the node's statistics, beside those that every module has. Must be cheap.
    fn statistics(&self, _node: &NodeContext) -> Vec<Statistic> {
        Vec::new()
    }

    /// Stage 1: sees every packet, may block it. Must be cheap.
    fn preprocess(&self, _packet: &Packet, _view: &View<'_>) -> Verdict {
        Verdict::Pass
    }

    /// Stage 2: sees the packets of its interests.
    fn process(&self, _packet: &Packet, _view: &View<'_>) -> Outcome {
        Outcome::Pass
    }

    /// Stage 3: sees what no processor handled.
    fn postprocess(&self, _packet: &Packet, _view: &View<'_>) -> Outcome {
        Outcome::Pass
    }

    /// Stage 4: sees every stanza that results; `false` stops it.
    fn filter(&self, _stanza: &Stanza, _view: &View<'_>) -> bool {
        true
    }
}

/// The beginning of a text, in whole characters: at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=text.len().min(most)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
