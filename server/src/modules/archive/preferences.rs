//! XEP-0441: what a user wants to be archived. What it means is decided where a message is kept.

use std::sync::Arc;

use althing_proto::jid::{self, Jid};
use althing_proto::ns;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::{failed, storage_failed};
use crate::node::NodeContext;
use crate::pipeline::{Outcome, Packet};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, UserEvent};
use crate::storage::messages::{ArchiveDefault, ArchivePreferences};

/// §2.1: what holds now; for who has said nothing, what the operator has.
pub(super) fn get(packet: &Packet, session: &SessionState, node: &Arc<NodeContext>) -> Outcome {
    let default: ArchiveDefault = node.config().archive.default.into();
    let (storage, account, packet) = (node.storage.clone(), session.account().clone(), packet.clone());
    Outcome::aside(async move {
        match storage.archive.preferences(&account).await {
            Ok(preferences) => {
                let nothing = || ArchivePreferences { default, always: Vec::new(), never: Vec::new() };
                let said = written(&preferences.unwrap_or_else(nothing));
                vec![Effect::Route(packet.stanza.result(Some(said)))]
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// §2.1: the whole is set, and told.
pub(super) fn set(
    packet: &Packet,
    said: &Element,
    session: &SessionState,
    node: &Arc<NodeContext>,
) -> Outcome {
    let preferences = match read(said) {
        Ok(preferences) => preferences,
        Err(error) => return Outcome::refuse(packet, error),
    };
    let (node, account, packet) = (Arc::clone(node), session.account().clone(), packet.clone());
    Outcome::aside(async move {
        let applied = written(&preferences);
        if let Err(error) = node.storage.archive.set_preferences(&account, preferences).await {
            return failed(&packet, &error);
        }
        // Who has begun before has read what was set before. Without an answer: those that are known.
        let _ = node.routes.barrier().await;
        vec![
            // All sessions read anew what their clients may be told.
            Effect::Notify { account, event: UserEvent::Archive },
            Effect::Route(packet.stanza.result(Some(applied))),
        ]
    })
}

fn read(said: &Element) -> Result<ArchivePreferences, StanzaError> {
    let default = match said.attr("default") {
        Some("always") => ArchiveDefault::Always,
        Some("never") => ArchiveDefault::Never,
        Some("roster") => ArchiveDefault::Roster,
        _ => {
            let text = "'default' is \"always\", \"never\" or \"roster\"";
            return Err(StanzaError::new(StanzaCondition::BadRequest, text));
        }
    };
    let list = |name| -> Result<Vec<Jid>, StanzaError> {
        let Some(list) = said.get_child(name, ns::MAM) else { return Ok(Vec::new()) };
        let jids = list.children().filter(|child| child.is("jid", ns::MAM));
        let mut jids: Vec<Jid> = jids
            .map(|child| jid::parse(child.text().trim()))
            .collect::<Result<_, _>>()
            .map_err(|_| StanzaError::new(StanzaCondition::JidMalformed, "a <jid/> has no address"))?;
        jids.sort();
        jids.dedup();
        Ok(jids)
    };
    Ok(ArchivePreferences { default, always: list("always")?, never: list("never")? })
}

fn written(preferences: &ArchivePreferences) -> Element {
    let default = match preferences.default {
        ArchiveDefault::Always => "always",
        ArchiveDefault::Never => "never",
        ArchiveDefault::Roster => "roster",
    };
    let list = |name: &str, jids: &[Jid]| {
        let jids = jids.iter().map(|jid| Element::builder("jid", ns::MAM).append(jid.as_str()).build());
        Element::builder(name, ns::MAM).append_all(jids).build()
    };
    Element::builder("prefs", ns::MAM)
        .set(name!("default"), default)
        .append(list("always", &preferences.always))
        .append(list("never", &preferences.never))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(xml: &str) -> Result<ArchivePreferences, StanzaCondition> {
        read(&xml.replacen("prefs", "prefs xmlns='urn:xmpp:mam:2'", 1).parse().unwrap())
            .map_err(|error| error.condition)
    }

    #[test]
    fn preferences_are_written_as_they_were_read() {
        let said = parsed(
            "<prefs default='roster'><never><jid>b@c</jid><jid>a@c/r</jid><jid>b@c</jid></never></prefs>",
        );
        let said = said.unwrap();
        assert_eq!((said.default, said.always.len(), said.never.len()), (ArchiveDefault::Roster, 0, 2));
        assert_eq!(read(&written(&said)).map_err(|error| error.condition), Ok(said));
    }

    #[test]
    fn what_is_wrong_is_told() {
        use StanzaCondition::{BadRequest, JidMalformed};
        for none in ["<prefs><never/></prefs>", "<prefs default='perhaps'><never/></prefs>"] {
            assert_eq!(parsed(none), Err(BadRequest), "{none}");
        }
        assert_eq!(parsed("<prefs default='never'><always><jid>@</jid></always></prefs>"), Err(JidMalformed));
    }
}
