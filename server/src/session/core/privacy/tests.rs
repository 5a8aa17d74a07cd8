//! Tests of what a privacy list means for a session.

use althing_cluster::routes::BindIndex;
use althing_proto::privacy::{Item, List, Subject};
use althing_proto::roster::{RosterItem, Subscription};

use super::*;

fn jid(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

/// An available session of a@b/c with contacts that see it and that it sees.
fn session(contacts: &[&str]) -> SessionState {
    let items = contacts.iter().map(|contact| {
        let mut item = RosterItem::new(BareJid::new(contact).unwrap());
        item.subscription = Subscription::Both;
        item
    });
    let own = FullJid::new("a@b/c").unwrap();
    let mut state = SessionState::new(own, BindIndex(1), 7, items.collect());
    let xml = "<presence xmlns='jabber:client' from='a@b/c'/>";
    state.apply(SessionChange::Presence(Stanza::parse(xml.parse().unwrap()).unwrap()));
    state
}

fn changed(version: u64, blocks: BlockDelta) -> PrivacyChanged {
    let default = Some(1);
    PrivacyChanged { version, changed: true, list: 1, default, edited: None, blocks, reload: false }
}

fn blocked(texts: &[&str]) -> BlockDelta {
    BlockDelta::Blocked(texts.iter().map(|text| jid(text)).collect())
}

fn unblocked(texts: &[&str]) -> BlockDelta {
    BlockDelta::Unblocked(texts.iter().map(|text| jid(text)).collect())
}

fn loaded(version: u64, rules: Vec<Item>, keys: &RandomState) -> LoadedPrivacy {
    let list = List::divided(1, rules);
    let rules = Rules::of(&list, &[], keys).map(Arc::new);
    let lists = Lists { version, default: Some(1), heads: Vec::new(), list: Some(list) };
    LoadedPrivacy { lists, rules }
}

fn block(text: &str) -> Item {
    Item { order: 0, subject: Subject::Jid(jid(text)), allow: false, kinds: Kinds::ALL }
}

/// What is routed or delivered, in short.
fn told(effects: &[Effect]) -> Vec<String> {
    let told = effects.iter().map(|effect| match effect {
        Effect::Route(stanza) | Effect::Deliver(stanza) => {
            String::from_utf8(stanza.to_bytes().to_vec()).unwrap()
        }
        Effect::Session(SessionChange::ReloadPrivacy) => "reload".to_owned(),
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn one_each(account: &BareJid) -> Vec<FullJid> {
    vec![account.with_resource_str("r").unwrap()]
}

/// P6: whoever is blocked is told of the end once, and of nothing after it.
#[test]
fn p6_who_is_blocked_gets_unavailable_and_then_nothing() {
    let keys = RandomState::new();
    let mut state = session(&["x@y", "z@y"]);
    let follow = |state: &mut SessionState, version, blocks| {
        told(&state.on_privacy(&changed(version, blocks), &keys, &one_each))
    };
    let effects = follow(&mut state, 1, blocked(&["x@y"]));
    assert_eq!(effects, ["<presence to='x@y' from='a@b/c' type='unavailable'/>"]);
    let Effect::FanOut { to, hidden: None, .. } = state.broadcast(state.unavailable()) else { panic!() };
    assert!(to.contains(&BareJid::new("z@y").unwrap()) && !to.contains(&BareJid::new("x@y").unwrap()));
    assert!(state.answer_probe(&jid("x@y/r")).is_none() && state.answer_probe(&jid("z@y/r")).is_some());
    // The same once more, or late, is known.
    assert!(follow(&mut state, 1, blocked(&["x@y"])).is_empty());
    let mut back = follow(&mut state, 2, unblocked(&[]));
    back.sort();
    assert_eq!(back, ["<presence to='x@y' from='a@b/c' type='probe'/>", "<presence to='x@y' from='a@b/c'/>"]);
    assert!(state.answer_probe(&jid("x@y/r")).is_some());
}

/// A single resource is hidden from, and no other.
#[test]
fn one_resource_of_a_contact_may_be_blocked() {
    let keys = RandomState::new();
    let mut state = session(&["x@y"]);
    let sessions =
        |account: &BareJid| ["r", "s"].map(|resource| account.with_resource_str(resource).unwrap()).to_vec();
    let effects = state.on_privacy(&changed(1, blocked(&["x@y/r"])), &keys, &sessions);
    assert_eq!(told(&effects), ["<presence to='x@y/r' from='a@b/c' type='unavailable'/>"]);
    let Effect::FanOut { to, hidden: Some(hidden), .. } = state.broadcast(state.unavailable()) else {
        panic!("it is said of single resources")
    };
    assert_eq!(to.iter().map(|jid| jid.as_str()).collect::<Vec<_>>(), ["x@y", "a@b"]);
    let hides = |at, text| hidden.is_from(at, &FullJid::new(text).unwrap());
    assert!(hides(0, "x@y/r") && !hides(0, "x@y/s") && !hides(1, "a@b/d"));
}

#[test]
fn oneself_and_the_own_server_are_never_blocked() {
    let keys = RandomState::new();
    let mut state = session(&[]);
    state.on_privacy(&changed(1, blocked(&["a@b", "b", "a@b/d"])), &keys, &one_each);
    for (peer, decision) in [
        ("a@b/d", Decision::Allow),
        ("a@b", Decision::Allow),
        ("b", Decision::Allow),
        ("b/x", Decision::Allow),
        ("other@b", Decision::Block),
    ] {
        assert_eq!(state.decide(&jid(peer), Kinds::OTHER), decision, "{peer}");
    }
}

/// Changes of two nodes may come in either order: none is lost, none comes twice.
#[test]
fn a_change_that_does_not_follow_is_read_anew() {
    let keys = RandomState::new();
    let mut state = session(&["x@y", "z@y"]);
    state.ask_for_blocks();
    let gap = state.on_privacy(&changed(2, blocked(&["z@y"])), &keys, &one_each);
    assert_eq!(told(&gap), ["reload"]);
    let both = loaded(2, vec![block("x@y"), block("z@y")], &keys);
    let effects = told(&state.on_privacy_loaded(both, &keys, &one_each));
    let item = |text: &str| format!("<item jid='{text}'/>");
    let push = effects.iter().find(|effect| effect.starts_with("<iq")).unwrap();
    assert!(push.contains("<block ") && push.contains(&item("x@y")) && push.contains(&item("z@y")));
    assert_eq!(effects.len(), 3, "and both see it go");
    assert!(state.on_privacy(&changed(1, blocked(&["x@y"])), &keys, &one_each).is_empty());
    // Somebody is gone from the list: the client hears it from the beginning.
    let less = loaded(3, vec![block("z@y")], &keys);
    let effects = told(&state.on_privacy_loaded(less, &keys, &one_each));
    let pushes: Vec<_> = effects.iter().filter(|effect| effect.starts_with("<iq")).collect();
    assert!(pushes[0].contains("<unblock xmlns='urn:xmpp:blocking'/>"), "{pushes:?}");
    assert!(pushes[1].contains(&item("z@y")) && !pushes[1].contains("x@y"));
    // What was read before a later change says nothing.
    state.on_privacy(&changed(4, blocked(&["q@y"])), &keys, &one_each);
    assert!(state.on_privacy_loaded(loaded(3, Vec::new(), &keys), &keys, &one_each).is_empty());
    assert_eq!(state.decide(&jid("q@y"), Kinds::OTHER), Decision::Block);
}

#[test]
fn a_stranger_who_was_told_by_directed_presence_learns_of_the_end() {
    let keys = RandomState::new();
    let mut state = session(&[]);
    state.apply(SessionChange::Directed(jid("s@y/r")));
    let effects = state.on_privacy(&changed(1, blocked(&["y"])), &keys, &one_each);
    assert_eq!(told(&effects), ["<presence to='s@y/r' from='a@b/c' type='unavailable'/>"]);
    assert!(told(&state.farewell()[1..]).is_empty(), "and not twice");
}

/// Requests of those who are blocked do not come back at each login.
#[test]
fn a_request_that_waits_is_kept_from_one_who_blocks() {
    let keys = RandomState::new();
    let mut item = RosterItem::new(BareJid::new("x@y").unwrap());
    item.pending_in = Some(b"<presence/>".to_vec());
    let own = FullJid::new("a@b/c").unwrap();
    let mut state = SessionState::new(own, BindIndex(1), 7, vec![item]);
    assert_eq!(state.pending_requests().count(), 1);
    state.set_privacy(loaded(1, vec![block("x@y")], &keys));
    assert_eq!(state.pending_requests().count(), 0);
}
