//! The state of a session: what follows from events.

use super::*;

fn bare(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn session(contacts: &[(&str, Subscription)]) -> SessionState {
    let items = contacts.iter().map(|(contact, subscription)| {
        let mut item = RosterItem::new(bare(contact));
        item.subscription = *subscription;
        item
    });
    SessionState::new(FullJid::new("a@b/c").unwrap(), BindIndex(1), 7, items.collect())
}

fn available(state: &mut SessionState) {
    let xml = "<presence xmlns='jabber:client' from='a@b/c'/>";
    state.apply(SessionChange::Presence(Stanza::parse(xml.parse().unwrap()).unwrap()));
}

fn changed(version: u64, contact: &str, subscription: Subscription) -> UserEvent {
    let push =
        Stanza::parse("<iq xmlns='jabber:client' type='set' id='p'><q/></iq>".parse().unwrap()).unwrap();
    UserEvent::Roster(RosterChanged {
        version,
        contact: bare(contact),
        subscription,
        pending: None,
        push: Some(push),
    })
}

fn routed(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Route(stanza) => Some(String::from_utf8(stanza.to_bytes().to_vec()).unwrap()),
            _ => None,
        })
        .collect()
}

/// Whom a broadcast goes to.
fn audience(state: &SessionState) -> Vec<BareJid> {
    match state.broadcast(state.unavailable()) {
        Effect::FanOut { to, hidden: None, .. } => to,
        other => panic!("{other:?}"),
    }
}

/// The effects that somebody else notices.
fn told(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().filter(|effect| !matches!(effect, Effect::Session(_))).collect()
}

#[test]
fn a_change_while_the_roster_is_loaded_for_the_client_is_pushed_after_it() {
    let mut state = session(&[]);
    let push = |version: u64| {
        let xml = format!(
            "<iq xmlns='jabber:client' type='set' id='{version}'><query xmlns='jabber:iq:roster'/></iq>"
        );
        let push = Some(Stanza::parse(xml.parse().unwrap()).unwrap());
        let contact = bare(&format!("contact{version}@y"));
        UserEvent::Roster(RosterChanged {
            version,
            contact,
            subscription: Subscription::None,
            pending: None,
            push,
        })
    };
    for version in [8, 10, 9] {
        assert!(state.on_event(push(version)).is_empty(), "the client did not ask yet");
    }
    assert_eq!(state.roster_told(8), Some(8), "9 and 10 are to be asked for");
    assert_eq!(state.roster_told(10), None);
    assert!(matches!(&state.on_event(push(11))[..], [Effect::Deliver(push)] if push.id() == Some("11")));
    let missing = state.on_event(push(13));
    assert!(
        matches!(missing[..], [Effect::Session(SessionChange::MissingPush { since: 11 })]),
        "{missing:?}"
    );
}

#[test]
fn presence_goes_to_those_who_receive_it_and_to_the_account() {
    use Subscription::{Both, From, To};
    let state = session(&[("from@x", From), ("both@x", Both), ("to@x", To)]);
    let mut audience = audience(&state);
    audience.sort();
    assert_eq!(audience, [bare("a@b"), bare("both@x"), bare("from@x")]);
    let mut probed: Vec<_> = state.probe_targets().cloned().collect();
    probed.sort();
    assert_eq!(probed, [bare("a@b"), bare("both@x"), bare("to@x")]);
}

/// P12: who sees the session follows the roster.
#[test]
fn a_gained_contact_gets_presence_and_a_lost_one_unavailable() {
    let mut state = session(&[]);
    assert!(state.on_event(changed(8, "x@y", Subscription::From)).is_empty(), "not available yet");
    state.on_event(changed(9, "x@y", Subscription::None));
    available(&mut state);
    let gained = state.on_event(changed(10, "x@y", Subscription::Both));
    assert_eq!(routed(&gained), ["<presence to='x@y' from='a@b/c'/>"]);
    assert!(state.on_event(changed(11, "x@y", Subscription::From)).is_empty());
    let lost = state.on_event(changed(12, "x@y", Subscription::To));
    assert_eq!(routed(&lost), ["<presence to='x@y' from='a@b/c' type='unavailable'/>"]);
}

#[test]
fn an_old_roster_change_is_ignored() {
    let mut state = session(&[("x@y", Subscription::Both)]);
    assert!(state.on_event(changed(7, "x@y", Subscription::None)).is_empty());
    assert_eq!(state.subscription(&bare("x@y")), Subscription::Both);
}

#[test]
fn the_farewell_tells_contacts_once_and_strangers_that_were_told() {
    let mut state = session(&[("x@y", Subscription::Both)]);
    assert!(told(&state.farewell()).is_empty(), "nobody was told that it was available");
    available(&mut state);
    for target in ["x@y/z", "stranger@y/z"] {
        state.apply(SessionChange::Directed(Jid::new(target).unwrap()));
    }
    let farewell = state.farewell();
    assert!(farewell.iter().any(|effect| matches!(effect, Effect::FanOut { to, .. } if to.len() == 2)));
    assert_eq!(routed(&farewell), ["<presence to='stranger@y/z' from='a@b/c' type='unavailable'/>"]);
}

#[test]
fn a_predecessor_that_was_lost_is_not_left_available() {
    let mut state = session(&[("x@y", Subscription::Both)]);
    state.apply(SessionChange::TookOver);
    let farewell = state.farewell();
    assert!(farewell.iter().any(|effect| matches!(effect, Effect::FanOut { to, .. } if to.len() == 2)));
}

#[test]
fn directed_presence_before_the_initial_one_is_ended_too() {
    let mut state = session(&[("x@y", Subscription::Both)]);
    state.apply(SessionChange::Directed(Jid::new("x@y/z").unwrap()));
    assert_eq!(routed(&state.farewell()).len(), 1);
}

#[test]
fn changes_of_two_contacts_may_come_in_either_order() {
    let mut state = session(&[("ex@y", Subscription::From)]);
    available(&mut state);
    let gained = state.on_event(changed(9, "new@y", Subscription::From));
    assert_eq!(routed(&gained), ["<presence to='new@y' from='a@b/c'/>"]);
    let lost = state.on_event(changed(8, "ex@y", Subscription::None));
    assert_eq!(routed(&lost), ["<presence to='ex@y' from='a@b/c' type='unavailable'/>"]);
    assert!(!audience(&state).contains(&bare("ex@y")), "a stranger would see presence for ever");
}

#[test]
fn of_two_changes_of_one_contact_the_newer_stands() {
    let mut state = session(&[]);
    available(&mut state);
    state.on_event(changed(9, "x@y", Subscription::None));
    assert!(state.on_event(changed(8, "x@y", Subscription::From)).is_empty());
    assert_eq!(state.subscription(&bare("x@y")), Subscription::None);
}

#[test]
fn targets_of_directed_presence_learn_of_its_end_once() {
    let mut state = session(&[]);
    state.apply(SessionChange::Directed(Jid::new("stranger@y/z").unwrap()));
    assert_eq!(routed(&state.farewell()).len(), 1);
    assert!(told(&state.farewell()).is_empty(), "told twice");
}
