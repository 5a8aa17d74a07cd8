//! XEP-0186: Invisible Command. A session hides from all and still receives; what that means is in
//! `session/core/invisible.rs`.

use std::sync::Arc;

use althing_proto::ns;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::xml::Element;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, View};
use crate::session::effect::{Effect, SessionChange};
use crate::session::logouts::{Logouts, logout};

/// The module.
pub(super) const MODULE: Invisible = Invisible;

const SPEC: Spec =
    Spec { name: "invisible", document: "XEP-0186", version: "0.14.0", title: "Invisible Command" };

pub(super) struct Invisible;

impl Module for Invisible {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_set(ns::INVISIBLE, At::OWN_ACCOUNT)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::INVISIBLE, at: At::SERVER }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let (Some(payload), Some(session)) = (packet.stanza.payload(), view.session) else {
            return Outcome::Pass;
        };
        let wanted = match wanted(payload) {
            Ok(wanted) => wanted,
            Err(error) => return Outcome::refuse(packet, error),
        };
        let effects = vec![
            Effect::Session(SessionChange::Invisible(wanted)),
            Effect::Route(packet.stanza.result(None)),
        ];
        let leaves = wanted.is_some() && session.invisible().is_none() && session.presence().is_some();
        if !leaves {
            return Outcome::Done(effects);
        }
        // §3.1.1 rule 8: to whoever asks it has been away since now.
        let noted = logout(session.jid(), view.now, &session.unavailable());
        let node = Arc::clone(view.node);
        Outcome::later(async move {
            Logouts::note(&node, noted).await;
            effects
        })
    }
}

/// Invisible, and whether to ask for the presence of others; or visible.
fn wanted(payload: &Element) -> Result<Option<bool>, StanzaError> {
    match (payload.name(), payload.attr("probe")) {
        ("visible", _) => Ok(None),
        ("invisible", Some("true" | "1")) => Ok(Some(true)),
        ("invisible", Some("false" | "0") | None) => Ok(Some(false)),
        ("invisible", Some(_)) => {
            Err(StanzaError::new(StanzaCondition::BadRequest, "'probe' is \"true\" or \"false\""))
        }
        _ => Err(StanzaError::new(StanzaCondition::BadRequest, "neither <invisible/> nor <visible/>")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_says_whether_to_probe_and_does_not_by_default() {
        let asked = |xml: &str| {
            let xml = format!("<{xml} xmlns='urn:xmpp:invisible:1'/>");
            wanted(&xml.parse().unwrap()).map_err(|error| error.condition)
        };
        for (xml, expected) in [
            ("invisible", Ok(Some(false))),
            ("invisible probe='true'", Ok(Some(true))),
            ("invisible probe='1'", Ok(Some(true))),
            ("invisible probe='0'", Ok(Some(false))),
            ("visible", Ok(None)),
            ("invisible probe='maybe'", Err(StanzaCondition::BadRequest)),
            ("translucent", Err(StanzaCondition::BadRequest)),
        ] {
            assert_eq!(asked(xml), expected, "{xml}");
        }
    }
}
