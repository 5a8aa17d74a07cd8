//! The hashes that stand for what the server can do: made once for a configuration, told to each client with the
//! features of its stream.

use minidom::Element;

use althing_proto::disco::Info;
use althing_proto::ns;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

/// Names the software in XEP-0115.
const SOFTWARE: &str = "urn:althing:server";

/// What the server can do, and its hashes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capabilities {
    /// What is hashed.
    pub info: Info,
    verification: String,
    hash: String,
}

impl Capabilities {
    /// Those of a server of which service discovery tells `info`.
    #[must_use]
    pub fn of(info: Info) -> Self {
        Capabilities { verification: info.verification(), hash: info.capability_hash(), info }
    }

    /// Whether `node` stands for them in XEP-0115 (§6.2).
    #[must_use]
    pub fn is_verification_node(&self, node: &str) -> bool {
        let ver = node.strip_prefix(SOFTWARE).and_then(|rest| rest.strip_prefix('#'));
        ver.is_some_and(|ver| ver == self.verification)
    }

    /// Whether `node` stands for them in XEP-0390 (§4.3).
    #[must_use]
    pub fn is_hash_node(&self, node: &str) -> bool {
        let rest = node.strip_prefix(ns::ECAPS2).and_then(|rest| rest.strip_prefix('#'));
        rest.and_then(|rest| rest.strip_prefix("sha-256.")).is_some_and(|hash| hash == self.hash)
    }

    /// The features of a stream that tell them (XEP-0115 §6.3, XEP-0390 §5.2).
    #[must_use]
    pub fn stream_features(&self) -> [Element; 2] {
        let caps = Element::builder("c", ns::CAPS)
            .set(name!("hash"), "sha-1")
            .set(name!("node"), SOFTWARE)
            .set(name!("ver"), &self.verification)
            .build();
        let hash =
            Element::builder("hash", ns::HASHES).set(name!("algo"), "sha-256").append(self.hash.as_str());
        [caps, Element::builder("c", ns::ECAPS2).append(hash).build()]
    }
}
