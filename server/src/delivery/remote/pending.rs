//! PURE: the stanzas on their way to sessions of other nodes, by session, and those that wait behind them.
//!
//! A target flows while its stanzas are sent and answered. It is held when one of them was not delivered, or when
//! the table names another owner while stanzas for the old one are out: then later ones queue behind, and once all
//! that are out are answered they go on one by one, in order.
//!
//! Policy for a full queue: at most [`MAX_BEHIND`] stanzas behind one target, [`MAX_WAITING`] stanzas and
//! [`MAX_WAITING_BYTES`] behind all; what comes next goes back to its sender with `resource-constraint`. What is
//! out is bounded by the links.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;

/// Most stanzas that wait behind one target.
pub const MAX_BEHIND: usize = 256;

/// Most stanzas that wait behind all targets together.
pub const MAX_WAITING: usize = 16_384;

/// Most bytes of them.
pub const MAX_WAITING_BYTES: usize = 16 << 20;

/// From so many stanzas out to one target on, clients that send to it are held up.
pub const CROWDED: usize = 256;

/// Most targets that are remembered to be slow. When full all are forgotten: those that still are say so again.
const MAX_SLOW: usize = 1_024;

/// The first pause for a client that sends to a slow target. It doubles with each stanza.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// What became of a stanza that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<F> {
    /// Delivered.
    Done,
    /// Delivered, to a client that reads too slowly.
    Slowly,
    /// Not delivered, or nobody knows: it holds the target.
    Failed(F),
}

/// What a new stanza for a target has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing is before it: it may go.
    Nothing,
    /// It waits behind others.
    Queued,
    /// It would have to wait, but as many as are allowed do so already.
    Full,
}

/// How a client that sends to a target is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brake {
    /// Not at all.
    None,
    /// For that long.
    For(Duration),
    /// Until fewer stanzas are out.
    UntilRelieved,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Next {
    /// All that was out is answered and something is left to do: take it with [`Pending::next`] until there is
    /// nothing.
    pub go_on: bool,
    /// The target is no longer crowded.
    pub relieved: bool,
}

#[derive(Debug)]
struct Target<S, F> {
    owner: BindIndex,
    out: VecDeque<(u64, S)>,
    /// In the order in which they were sent, once all are answered.
    failed: Vec<(u64, S, F)>,
    behind: VecDeque<(S, usize)>,
    /// Somebody takes what is left.
    going_on: bool,
    /// What he has taken last, and brings to its end.
    taken: Option<S>,
    /// One that is out waits here, not on its way there: later ones would overtake it.
    waits_here: bool,
    crowded: bool,
}

impl<S, F> Target<S, F> {
    fn all(&self) -> impl Iterator<Item = &S> {
        let out = self.out.iter().map(|(_, stanza)| stanza);
        let failed = self.failed.iter().map(|(_, stanza, _)| stanza);
        out.chain(failed).chain(&self.taken).chain(self.behind.iter().map(|(stanza, _)| stanza))
    }

    fn is_held(&self) -> bool {
        self.going_on || self.waits_here || !self.failed.is_empty() || !self.behind.is_empty()
    }
}

/// All targets with stanzas under way. `S` is a stanza, `F` says why one was not delivered.
#[derive(Debug)]
pub struct Pending<S, F> {
    targets: HashMap<FullJid, Target<S, F>>,
    next: u64,
    waiting: usize,
    waiting_bytes: usize,
    slow: HashMap<FullJid, u32>,
}

impl<S, F> Default for Pending<S, F> {
    fn default() -> Self {
        Pending { targets: HashMap::new(), next: 0, waiting: 0, waiting_bytes: 0, slow: HashMap::new() }
    }
}

impl<S: Clone, F> Pending<S, F> {
    /// How many targets have stanzas under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Queues a stanza of `bytes` bytes if something for `to` must come before it; `owner` is who the table names
    /// now. `stanza` is made only where it is kept.
    pub fn wait_behind(
        &mut self,
        to: &FullJid,
        owner: Option<BindIndex>,
        bytes: usize,
        stanza: impl FnOnce() -> S,
    ) -> Behind {
        let Some(target) = self.targets.get_mut(to) else { return Behind::Nothing };
        if !target.is_held() && Some(target.owner) == owner {
            return Behind::Nothing;
        }
        let full = target.behind.len() >= MAX_BEHIND
            || self.waiting >= MAX_WAITING
            || self.waiting_bytes.saturating_add(bytes) > MAX_WAITING_BYTES;
        if full {
            return Behind::Full;
        }
        self.waiting += 1;
        self.waiting_bytes += bytes;
        target.behind.push_back((stanza(), bytes));
        Behind::Queued
    }

    /// Notes a stanza that is about to be sent to the session that `owner` began; its number. Nothing holds the
    /// target: the caller has asked [`Pending::wait_behind`] under the same lock.
    pub fn sent(&mut self, to: &FullJid, owner: BindIndex, stanza: S) -> u64 {
        self.next += 1;
        let number = self.next;
        if let Some(target) = self.targets.get_mut(to) {
            target.out.push_back((number, stanza));
            target.crowded |= target.out.len() >= CROWDED;
            return number;
        }
        let target = Target {
            owner,
            out: VecDeque::from([(number, stanza)]),
            failed: Vec::new(),
            behind: VecDeque::new(),
            going_on: false,
            taken: None,
            waits_here: false,
            crowded: false,
        };
        self.targets.insert(to.clone(), target);
        number
    }

    /// As [`Pending::sent`] for a stanza that is not on its way, but waits here until something is known: it holds the
    /// target.
    pub fn waits(&mut self, to: &FullJid, owner: BindIndex, stanza: S) -> u64 {
        let number = self.sent(to, owner, stanza);
        if let Some(target) = self.targets.get_mut(to) {
            target.waits_here = true;
        }
        number
    }

    /// Whether the answer to a stanza that was sent is still to come.
    #[must_use]
    pub fn is_out(&self, to: &FullJid, number: u64) -> bool {
        let target = self.targets.get(to);
        target.is_some_and(|target| target.out.binary_search_by_key(&number, |(number, _)| *number).is_ok())
    }

    /// A stanza that was sent is answered.
    pub fn answered(&mut self, to: &FullJid, number: u64, outcome: Outcome<F>) -> Next {
        match outcome {
            Outcome::Slowly if self.slow.contains_key(to) => {}
            Outcome::Slowly => {
                if self.slow.len() >= MAX_SLOW {
                    self.slow.clear();
                }
                self.slow.insert(to.clone(), 0);
            }
            Outcome::Done if !self.slow.is_empty() => drop(self.slow.remove(to)),
            _ => {}
        }
        let Some(target) = self.targets.get_mut(to) else { return Next::default() };
        if let Ok(at) = target.out.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((number, stanza)) = target.out.remove(at)
            && let Outcome::Failed(why) = outcome
        {
            target.failed.push((number, stanza, why));
        }
        let relieved = target.crowded && target.out.len() <= CROWDED / 2;
        target.crowded &= !relieved;
        let mut go_on = false;
        if target.out.is_empty() && !target.going_on {
            go_on = target.is_held();
            if go_on {
                target.failed.sort_by_key(|(number, _, _)| *number);
                target.failed.reverse();
                target.going_on = true;
            } else {
                self.targets.remove(to);
            }
        }
        Next { go_on, relieved }
    }

    /// What comes next for a target that goes on: first what was not delivered and why, then what waited. `None`
    /// when nothing is left: the target flows again.
    pub fn next(&mut self, to: &FullJid) -> Option<(S, Option<F>)> {
        let target = self.targets.get_mut(to)?;
        if let Some((_, stanza, why)) = target.failed.pop() {
            target.taken = Some(stanza.clone());
            return Some((stanza, Some(why)));
        }
        let Some((stanza, bytes)) = target.behind.pop_front() else {
            self.targets.remove(to);
            return None;
        };
        target.taken = Some(stanza.clone());
        self.waiting -= 1;
        self.waiting_bytes -= bytes;
        Some((stanza, None))
    }

    /// How a client that has just sent to `to` is held up.
    pub fn brake(&mut self, to: &FullJid, longest: Duration) -> Brake {
        if self.is_crowded(to) {
            return Brake::UntilRelieved;
        }
        let Some(streak) = (!self.slow.is_empty()).then(|| self.slow.get_mut(to)).flatten() else {
            return Brake::None;
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << (*streak).min(16)).min(longest);
        *streak += 1;
        Brake::For(pause)
    }

    /// Whether a stanza that is so is not at its end yet: out, or still here.
    #[must_use]
    pub fn has(&self, is_so: impl Fn(&S) -> bool) -> bool {
        self.targets.values().any(|target| target.all().any(&is_so))
    }

    /// Whether something waits here to be looked up once more for `to`.
    #[must_use]
    pub fn is_held(&self, to: &FullJid) -> bool {
        self.targets.get(to).is_some_and(Target::is_held)
    }

    /// Whether stanzas wait until `to` is found.
    #[must_use]
    pub fn is_waited_for(&self, to: &FullJid) -> bool {
        self.targets.get(to).is_some_and(|target| !target.behind.is_empty())
    }

    /// Whether so many stanzas are out to `to` that its senders are to wait.
    #[must_use]
    pub fn is_crowded(&self, to: &FullJid) -> bool {
        self.targets.get(to).is_some_and(|target| target.crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Under = Pending<&'static str, &'static str>;

    const OLD: BindIndex = BindIndex(1);
    const NEW: BindIndex = BindIndex(2);

    fn jid() -> FullJid {
        FullJid::new("a@b/c").unwrap()
    }

    fn behind(pending: &mut Under, owner: BindIndex, text: &'static str) -> Behind {
        pending.wait_behind(&jid(), Some(owner), text.len(), || text)
    }

    fn rest(pending: &mut Under) -> Vec<(&'static str, Option<&'static str>)> {
        std::iter::from_fn(|| pending.next(&jid())).collect()
    }

    #[test]
    fn a_target_that_flows_leaves_nothing_behind() {
        let mut pending = Under::default();
        assert_eq!(behind(&mut pending, OLD, "1"), Behind::Nothing);
        let first = pending.sent(&jid(), OLD, "1");
        assert_eq!(behind(&mut pending, OLD, "2"), Behind::Nothing, "several may be out");
        let second = pending.sent(&jid(), OLD, "2");
        assert_eq!(pending.answered(&jid(), first, Outcome::Done), Next::default());
        assert_eq!(pending.answered(&jid(), second, Outcome::Done), Next::default());
        assert!(pending.is_empty());
    }

    #[test]
    fn what_was_not_delivered_comes_first_and_in_order() {
        let mut pending = Under::default();
        let numbers = ["1", "2", "3"].map(|text| pending.sent(&jid(), OLD, text));
        assert!(!pending.answered(&jid(), numbers[1], Outcome::Failed("gone")).go_on, "others are out");
        assert_eq!(behind(&mut pending, OLD, "4"), Behind::Queued);
        assert!(!pending.answered(&jid(), numbers[2], Outcome::Done).go_on);
        assert!(pending.answered(&jid(), numbers[0], Outcome::Failed("gone")).go_on);
        assert_eq!(behind(&mut pending, NEW, "5"), Behind::Queued, "also while the rest is taken");
        let expected = [("1", Some("gone")), ("2", Some("gone")), ("4", None), ("5", None)];
        assert_eq!(rest(&mut pending), expected);
        assert!(pending.is_empty());
        assert_eq!((pending.waiting, pending.waiting_bytes), (0, 0));
        assert_eq!(behind(&mut pending, NEW, "6"), Behind::Nothing);
    }

    #[test]
    fn nothing_overtakes_a_stanza_that_waits_here_for_its_session() {
        let mut pending = Under::default();
        let number = pending.waits(&jid(), NEW, "1");
        assert_eq!(behind(&mut pending, NEW, "2"), Behind::Queued, "though its session may be here by now");
        assert!(pending.answered(&jid(), number, Outcome::Failed("late")).go_on);
        assert_eq!(rest(&mut pending), [("1", Some("late")), ("2", None)]);
        let number = pending.waits(&jid(), NEW, "3");
        assert!(pending.answered(&jid(), number, Outcome::Done).go_on);
        assert!(rest(&mut pending).is_empty());
        assert_eq!(behind(&mut pending, NEW, "4"), Behind::Nothing);
    }

    #[test]
    fn a_new_owner_waits_for_what_is_out_to_the_old_one() {
        let mut pending = Under::default();
        let number = pending.sent(&jid(), OLD, "1");
        assert_eq!(behind(&mut pending, NEW, "2"), Behind::Queued);
        assert_eq!(pending.wait_behind(&jid(), None, 1, || "3"), Behind::Queued, "nor is it called absent");
        assert!(pending.answered(&jid(), number, Outcome::Done).go_on);
        assert_eq!(rest(&mut pending), [("2", None), ("3", None)]);
    }

    #[test]
    fn a_stanza_is_here_until_it_is_answered_or_brought_to_its_end() {
        let mut pending = Under::default();
        let numbers = ["1", "2"].map(|text| pending.sent(&jid(), OLD, text));
        behind(&mut pending, NEW, "3");
        let here = |pending: &Under| ["1", "2", "3"].map(|text| pending.has(|stanza| *stanza == text));
        assert_eq!(here(&pending), [true; 3]);
        pending.answered(&jid(), numbers[0], Outcome::Done);
        assert_eq!(here(&pending), [false, true, true]);
        assert!(pending.answered(&jid(), numbers[1], Outcome::Failed("gone")).go_on);
        for left in [[false, true, true], [false, false, true]] {
            assert!(pending.next(&jid()).is_some());
            assert_eq!(here(&pending), left, "whoever has taken it is about to send it once more");
        }
        assert!(pending.next(&jid()).is_none());
        assert_eq!(here(&pending), [false; 3]);
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut pending = Under::default();
        pending.sent(&jid(), OLD, "1");
        for _ in 0..MAX_BEHIND {
            assert_eq!(behind(&mut pending, NEW, "2"), Behind::Queued);
        }
        assert_eq!(behind(&mut pending, NEW, "3"), Behind::Full);
        let other = FullJid::new("d@e/f").unwrap();
        pending.sent(&other, OLD, "1");
        let large = pending.wait_behind(&other, None, MAX_WAITING_BYTES, || "2");
        assert_eq!(large, Behind::Full, "bytes are bounded over all targets");
    }

    #[test]
    fn senders_to_a_slow_target_pause_longer_and_longer_until_it_keeps_up() {
        let longest = Duration::from_millis(50);
        let mut pending = Under::default();
        assert_eq!(pending.brake(&jid(), longest), Brake::None);
        let number = pending.sent(&jid(), OLD, "1");
        pending.answered(&jid(), number, Outcome::Slowly);
        let pauses = [10, 20, 40, 50, 50].map(|millis| Brake::For(Duration::from_millis(millis)));
        assert_eq!(pauses.map(|_| pending.brake(&jid(), longest)), pauses);
        let number = pending.sent(&jid(), OLD, "2");
        pending.answered(&jid(), number, Outcome::Done);
        assert_eq!(pending.brake(&jid(), longest), Brake::None);
    }

    #[test]
    fn a_crowded_target_is_relieved_once_half_is_answered() {
        let mut pending = Under::default();
        let numbers: Vec<u64> = (0..CROWDED).map(|_| pending.sent(&jid(), OLD, "x")).collect();
        assert_eq!(pending.brake(&jid(), Duration::ZERO), Brake::UntilRelieved);
        let relieved: Vec<bool> = numbers
            .into_iter()
            .map(|number| pending.answered(&jid(), number, Outcome::Done).relieved)
            .collect();
        assert_eq!(relieved.iter().position(|relieved| *relieved), Some(CROWDED / 2 - 1));
        assert_eq!(relieved.iter().filter(|relieved| **relieved).count(), 1);
    }
}
