//! RFC 6121 §3 and §4: presence and subscriptions.
//!
//! | file             | what                                                            |
//! |------------------|-----------------------------------------------------------------|
//! | `update.rs`      | initial presence, changes of it, its end (§4.2, §4.4, §4.5)     |
//! | `directed.rs`    | presence to one address (§4.6)                                  |
//! | `probe.rs`       | who asks for presence, and who may know (§4.3)                  |
//! | `subscription.rs`| the handshake between two accounts (§3)                         |

mod directed;
mod probe;
mod subscription;
mod update;

use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, StanzaCondition, StanzaError};

use althing_proto::xml::Element;

use super::{Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, Pass, View};

/// The module.
pub(super) const MODULE: Presence = Presence;

const SPEC: Spec =
    Spec {
        name: "presence", document: "RFC 6121 §3, §4", version: "", title: "Presence and subscriptions"
    };

/// Most bytes of a presence that is broadcast. Each contact gets it at each login, with that of all other contacts: a
/// few large ones would be more than may wait for a client.
const MAX_BROADCAST_BYTES: usize = 16 * 1024;

pub(super) struct Presence;

impl Module for Presence {
    fn spec(&self) -> Spec {
        SPEC
    }

    /// §3.4.1.
    fn stream_features(&self) -> Vec<Element> {
        vec![Element::bare("sub", ns::PRE_APPROVAL)]
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::presence(At::OUTBOUND.or(At::INBOUND).or(At::OWN_ACCOUNT).or(At::OTHER_ACCOUNT))] }
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Kind::Presence(presence) = packet.stanza.kind() else { return Outcome::Pass };
        match (&packet.pass, presence) {
            (Pass::Outbound, kind) if kind.is_subscription() => subscription::outbound(packet, kind, view),
            (Pass::Outbound, PresenceType::Available | PresenceType::Unavailable) => {
                let Some(session) = view.session else { return Outcome::Pass };
                if packet.stanza.priority().is_none() {
                    let text = "a priority is an integer from -128 to 127";
                    return Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text));
                }
                if packet.stanza.to().is_none() && packet.stanza.to_bytes().len() > MAX_BROADCAST_BYTES {
                    let text = format!("presence for all contacts has at most {MAX_BROADCAST_BYTES} bytes");
                    return Outcome::refuse(packet, StanzaError::new(StanzaCondition::PolicyViolation, text));
                }
                Outcome::Done(match packet.stanza.to() {
                    None => update::decide(session, &packet.stanza),
                    Some(to) => directed::decide(session, packet, to),
                })
            }
            (Pass::Account(account), kind) if kind.is_subscription() => {
                subscription::inbound(packet, account, kind, view)
            }
            (Pass::Account(account), PresenceType::Probe) => probe::of_account(packet, account, view),
            (Pass::Inbound, PresenceType::Probe) => probe::of_session(packet, view),
            _ => Outcome::Pass,
        }
    }
}
