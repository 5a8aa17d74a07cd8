//! The checker on histories made by hand: those that keep the promises, and each way to break one.

use super::*;

const RULES: Rules<'_> = Rules { settle_ms: 1_000, faults: &[] };
const ALICE: usize = 0;
const BOB: usize = 1;

/// The `count`th message of alice to bob.
fn to_bob(count: u64) -> Number {
    Number { from: ALICE, to: BOB, count }
}

fn sent(count: u64) -> Entry {
    Entry::Sent(Some(to_bob(count)))
}

fn got(count: u64, id: &str) -> Entry {
    Entry::Received(to_bob(count), (!id.is_empty()).then(|| id.to_owned()))
}

fn told(handled: u32) -> Entry {
    Entry::Handled(Word::Answer, handled)
}

/// A second passes where a number stands, in milliseconds of the moment.
fn log(entries: impl IntoIterator<Item = (u64, Entry)>) -> Log {
    Log(entries.into_iter().collect())
}

/// All at the same moment.
fn at_once(entries: impl IntoIterator<Item = Entry>) -> Log {
    log(entries.into_iter().map(|entry| (0, entry)))
}

fn breaches(alice: Log, bob: Log) -> Vec<Breach> {
    check(&[alice, bob], RULES).1
}

/// Alice has written two messages, and both are acknowledged.
fn alice() -> Log {
    at_once([Entry::Enabled, Entry::Sent(None), sent(1), sent(2), told(3)])
}

#[test]
fn what_is_acknowledged_and_arrives_is_fine() {
    let bob = at_once([Entry::Enabled, got(1, "a"), got(2, "b"), Entry::Acknowledged, Entry::Confirmed]);
    let (figures, breaches) = check(&[alice(), bob], RULES);
    assert_eq!(breaches, []);
    let expected = Figures { acknowledged: 2, delivered: 2, ..Figures::default() };
    assert_eq!(figures, expected);
    assert!(figures.to_string().ends_with("acknowledged 2 delivered 2 repeated 0 twice 0 lost 0"));
}

/// An acknowledgement before the commit: the node dies in between.
#[test]
fn what_is_acknowledged_and_never_arrives_is_lost() {
    let bob = || at_once([Entry::Enabled, got(1, "a")]);
    let (figures, found) = check(&[alice(), bob()], RULES);
    assert_eq!((found, figures.lost), (vec![Breach::Lost(to_bob(2))], 1));
    // By the word of a stream that ended, too.
    let failed = at_once([Entry::Enabled, sent(1), sent(2), Entry::Broke, Entry::Handled(Word::Failed, 2)]);
    assert_eq!(breaches(failed, bob()), [Breach::Lost(to_bob(2))]);
    // What was not acknowledged may be lost, and so may what came back.
    let unheard = at_once([Entry::Enabled, sent(1), sent(2), told(1)]);
    assert_eq!(breaches(unheard, bob()), []);
    let refused = at_once([Entry::Enabled, sent(1), sent(2), told(2), Entry::Refused(to_bob(2))]);
    assert_eq!(breaches(refused, bob()), []);
    // What is acknowledged on a stream is what was sent on it, in its order.
    let again = at_once([
        Entry::Enabled,
        sent(1),
        sent(2),
        told(1),
        Entry::Broke,
        Entry::Handled(Word::Failed, 1),
        Entry::Enabled,
        Entry::Sent(None),
        sent(2),
        told(1),
    ]);
    assert_eq!(breaches(again, bob()), []);
}

/// A drain that deletes loses what its client has not got; one that never settles brings it again and again.
#[test]
fn a_repetition_needs_a_reason() {
    let twice = |between: Vec<(u64, Entry)>| {
        let first = [(0, Entry::Enabled), (0, got(1, "a")), (0, got(2, "b"))];
        let last = [(9_000, got(1, "a")), (9_000, got(2, "b"))];
        breaches(alice(), log(first.into_iter().chain(between).chain(last)))
    };
    let both = [Breach::Again(to_bob(1)), Breach::Again(to_bob(2))];
    // On one stream, also where that went on elsewhere.
    assert_eq!(twice(vec![]), both);
    assert_eq!(twice(vec![(0, Entry::Broke), (0, Entry::Handled(Word::Resumed, 0))]), both);
    // On another one it is as it must be: the server did not know that they had arrived.
    let anew = || [(5_000, Entry::Broke), (5_000, Entry::Enabled)];
    assert_eq!(twice(anew().into()), []);
    let acknowledged = |at| vec![(at, Entry::Acknowledged), (at, Entry::Confirmed)];
    // It knew, but may not have noted it.
    assert_eq!(twice([acknowledged(4_500), anew().into()].concat()), []);
    // It knew for long.
    assert_eq!(twice([acknowledged(2_000), anew().into()].concat()), both);
    // It knew, but from then on nothing could be noted.
    let faulty = |faults: &[(u64, u64)]| {
        let first = vec![(0, Entry::Enabled), (0, got(1, "a")), (0, got(2, "b"))];
        let last = vec![(9_000, got(1, "a")), (9_000, got(2, "b"))];
        let bob = log([first, acknowledged(2_000), anew().into(), last].concat());
        check(&[alice(), bob], Rules { faults, ..RULES }).1
    };
    assert_eq!(faulty(&[(0, 500), (2_500, 6_000)]), []);
    assert_eq!(faulty(&[(3_500, 6_000)]), both);
    assert_eq!(faulty(&[(0, 3_500)]), both);
    // An acknowledgement that nobody answered may have been lost with its connection.
    assert_eq!(twice([vec![(2_000, Entry::Acknowledged)], anew().into()].concat()), []);
    // A resumption tells the server too.
    let resumed = vec![(1_000, Entry::Broke), (2_000, Entry::Handled(Word::Resumed, 0))];
    let (figures, found) = {
        let first = vec![(0, Entry::Enabled), (0, got(1, "a")), (0, got(2, "b"))];
        let later = vec![(9_000, Entry::Broke), (9_000, Entry::Enabled), (9_000, got(1, "a"))];
        check(&[alice(), log([first, resumed, later].concat())], RULES)
    };
    assert_eq!((figures.repeated, figures.resumed), (1, 1));
    // The connection on which it came ended before the server knew: nobody says how long it was known.
    assert_eq!(found, []);
}

/// The handled number is not in the commit of the message: the sender writes it once more, or is told less than before.
#[test]
fn a_second_id_needs_a_second_writing() {
    let bob = || at_once([Entry::Enabled, got(1, "a"), got(2, "b"), got(2, "c")]);
    assert_eq!(breaches(alice(), bob()), [Breach::Doubled(to_bob(2))]);
    let again = |word| {
        let stream = [Entry::Enabled, sent(1), sent(2), told(1), Entry::Broke, word];
        at_once(stream.into_iter().chain([Entry::Enabled, sent(2), told(1)]))
    };
    assert_eq!(breaches(again(Entry::Handled(Word::Failed, 1)), bob()), []);
    let less = Breach::WrongCount { of: ALICE, told: 0, least: 1, most: 2 };
    assert_eq!(breaches(again(Entry::Handled(Word::Failed, 0)), bob()), [less]);
    let forgotten = Breach::Forgotten { of: ALICE, told: 1 };
    assert_eq!(breaches(again(Entry::Forgotten), bob()), [forgotten]);
    // Without ids nobody can tell them apart.
    let bare = || at_once([Entry::Enabled, got(1, ""), got(2, ""), got(2, "")]);
    assert_eq!(breaches(again(Entry::Handled(Word::Failed, 1)), bare()), []);
    assert_eq!(breaches(alice(), bare()), [Breach::Again(to_bob(2))]);
}

#[test]
fn the_server_counts_what_was_sent() {
    let bob = || at_once([Entry::Enabled, got(1, "a")]);
    let alice = |words: Vec<Entry>| at_once([Entry::Enabled, sent(1)].into_iter().chain(words));
    let wrong = |told, least, most| vec![Breach::WrongCount { of: ALICE, told, least, most }];
    assert_eq!(breaches(alice(vec![told(2)]), bob()), wrong(2, 0, 1));
    assert_eq!(breaches(alice(vec![told(1), told(0)]), bob()), wrong(0, 1, 1));
    let resumed = vec![told(1), Entry::Broke, Entry::Handled(Word::Resumed, 0)];
    assert_eq!(breaches(alice(resumed), bob()), wrong(0, 1, 1));
    // What is no message counts as any other stanza, also when its node is lost.
    let ping = |handled| {
        let words = [Entry::Sent(None), told(2), Entry::Broke, Entry::Handled(Word::Failed, handled)];
        alice(words.into())
    };
    assert_eq!(breaches(ping(2), bob()), []);
    assert_eq!(breaches(ping(1), bob()), wrong(1, 2, 2));
    // A stream of which nothing was acknowledged owes nothing.
    assert_eq!(breaches(alice(vec![Entry::Broke, Entry::Forgotten]), bob()), []);
}

#[test]
fn each_pair_keeps_its_order_across_all_streams() {
    let late = || vec![Breach::OutOfOrder { late: to_bob(1), before: to_bob(2) }];
    assert_eq!(breaches(alice(), at_once([Entry::Enabled, got(2, "b"), got(1, "a")])), late());
    let moved = [Entry::Enabled, got(2, "b"), Entry::Broke, Entry::Enabled, got(1, "a"), got(2, "b")];
    assert_eq!(breaches(alice(), at_once(moved)), late());
    let repeated = [Entry::Enabled, got(1, "a"), got(2, "b"), Entry::Broke, Entry::Enabled, got(1, "a")];
    assert_eq!(breaches(alice(), at_once(repeated)), []);
}

#[test]
fn what_is_for_others_or_was_never_written_is_found() {
    let bob = at_once([Entry::Enabled, got(1, "a"), got(2, "b"), got(7, "x")]);
    assert_eq!(breaches(alice(), bob), [Breach::Stray(to_bob(7))]);
    let own = at_once([Entry::Enabled, sent(1), got(1, "a")]);
    assert_eq!(breaches(own, at_once([])), [Breach::Stray(to_bob(1))]);
}
