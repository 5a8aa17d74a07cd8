//! What many clients have sent and received while nodes come and go, and whether that keeps the promises.
//!
//! Every message has a number that is unique and grows with the moment of its sending, so that "sent after" can be
//! said without clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, bail, ensure};

/// One bind of one JID: which JID, and the how manieth bind of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// The full JID.
    pub jid: String,
    /// Counts its binds in the order in which they were answered.
    pub generation: usize,
    /// The node that answered.
    pub node: usize,
}

#[derive(Debug, Default)]
struct Records {
    next: u64,
    /// The number of the next message when a bind was answered.
    answered: BTreeMap<(String, usize), u64>,
    generations: BTreeMap<String, usize>,
    /// Where each JID has been bound last.
    nodes: BTreeMap<String, usize>,
    sent: BTreeMap<u64, (Bound, String)>,
    /// In the order of receipt.
    received: BTreeMap<Bound, Vec<u64>>,
    /// Came back with an error.
    bounced: BTreeSet<u64>,
}

impl Records {
    /// The messages with numbers in `numbers` between JIDs whose generations are those of `before`, still. Those that a
    /// client has written to an older stream of its own are not among them: that one had ended.
    fn between_untouched(
        &self,
        numbers: Range<u64>,
        before: &BTreeMap<String, usize>,
    ) -> impl Iterator<Item = u64> {
        let same = |jid: &String| before.get(jid) == self.generations.get(jid);
        let current = |from: &Bound| before.get(&from.jid) == Some(&from.generation);
        let sent = self.sent.range(numbers);
        sent.filter(move |(_, (from, to))| current(from) && same(&from.jid) && same(to))
            .map(|(number, _)| *number)
    }
}

/// The records of a test, shared by its clients.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

/// What a history holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Messages sent.
    pub sent: usize,
    /// Messages received.
    pub received: usize,
    /// Those of them that an earlier bind had received before.
    pub again: usize,
    /// Messages that came back with an error.
    pub bounced: usize,
    /// Binds answered.
    pub binds: usize,
}

impl History {
    /// A bind of `jid` was answered by that node.
    pub fn bound(&self, jid: &str, node: usize) -> Bound {
        let mut records = self.records();
        let next = records.next;
        let generation = records.generations.entry(jid.to_owned()).or_default();
        *generation += 1;
        let bound = Bound { jid: jid.to_owned(), generation: *generation, node };
        records.nodes.insert(jid.to_owned(), node);
        records.answered.insert((bound.jid.clone(), bound.generation), next);
        bound
    }

    /// A message is about to be sent; returns its number.
    pub fn sending(&self, from: &Bound, to: &str) -> u64 {
        let mut records = self.records();
        let number = records.next;
        records.next += 1;
        records.sent.insert(number, (from.clone(), to.to_owned()));
        number
    }

    /// A message was received.
    pub fn received(&self, by: &Bound, number: u64) {
        self.records().received.entry(by.clone()).or_default().push(number);
    }

    /// A message came back with an error.
    pub fn bounced(&self, number: u64) {
        self.records().bounced.insert(number);
    }

    /// The number of the next message.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.records().next
    }

    /// The generation that each JID has now.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<String, usize> {
        self.records().generations.clone()
    }

    /// The pairs of JIDs, each to each other, between which no message of number `since` or later has arrived.
    #[must_use]
    pub fn silent_pairs(&self, since: u64) -> Vec<(String, String)> {
        let records = self.records();
        let arrived = records.received.values().flatten().filter(|number| **number >= since);
        let heard: BTreeSet<(&str, &str)> = arrived
            .filter_map(|number| records.sent.get(number))
            .map(|(from, to)| (from.jid.as_str(), to.as_str()))
            .collect();
        let jids = || records.generations.keys();
        let pairs = jids().flat_map(|from| jids().map(move |to| (from, to)));
        let silent = pairs.filter(|(from, to)| from != to && !heard.contains(&(from.as_str(), to.as_str())));
        silent.map(|(from, to)| (from.clone(), to.clone())).collect()
    }

    /// For people: each of those pairs, where both are now, and what became of the messages.
    #[must_use]
    pub fn silent(&self, since: u64) -> String {
        let pairs = self.silent_pairs(since);
        let records = self.records();
        let place = |jid: &String| {
            let generation = records.generations.get(jid).copied().unwrap_or_default();
            let node = records.nodes.get(jid).copied().unwrap_or_default();
            format!("{jid} (bind {generation}, node-{node})")
        };
        let tell = |(from, to): (String, String)| {
            let sent = records.sent.range(since..).filter(|(_, (by, at))| by.jid == from && *at == to);
            let sent: Vec<(u64, usize)> = sent.map(|(number, (by, _))| (*number, by.generation)).collect();
            let back = sent.iter().filter(|(number, _)| records.bounced.contains(number)).count();
            let last = sent.last();
            format!(
                "{} to {}: {} sent, {back} came back, the last is {last:?}",
                place(&from),
                place(&to),
                sent.len()
            )
        };
        pairs.into_iter().map(tell).collect::<Vec<_>>().join("; ")
    }

    /// Messages with numbers in `numbers` that were neither received nor came back, between JIDs whose generations
    /// are those of `before`, still.
    #[must_use]
    pub fn lost(&self, numbers: Range<u64>, before: &BTreeMap<String, usize>) -> Vec<u64> {
        let records = self.records();
        let arrived: BTreeSet<u64> = records.received.values().flatten().copied().collect();
        let lost = records.between_untouched(numbers, before);
        lost.filter(|number| !arrived.contains(number) && !records.bounced.contains(number)).collect()
    }

    /// Messages with numbers in `numbers` that came back, between JIDs whose generations are those of `before`, still.
    #[must_use]
    pub fn refused(&self, numbers: Range<u64>, before: &BTreeMap<String, usize>) -> Vec<u64> {
        let records = self.records();
        let sent = records.between_untouched(numbers, before);
        sent.filter(|number| records.bounced.contains(number)).collect()
    }

    /// Checks what must hold at any time: no message twice to one bind, none to the wrong one, those of a pair of
    /// binds in order, and none delivered to a bind that was sent after a later bind of the JID was answered.
    ///
    /// A later bind may get once more what an earlier one got from a node that was then lost: nobody can know whether
    /// it did. How often that was is in the [`Summary`].
    ///
    /// # Errors
    /// The first breach.
    pub fn check(&self) -> Result<()> {
        let records = self.records();
        for (by, numbers) in &records.received {
            let mut seen = BTreeSet::new();
            let successor = (by.jid.clone(), by.generation + 1);
            let end = records.answered.get(&successor).copied().unwrap_or(u64::MAX);
            let mut last: BTreeMap<&Bound, u64> = BTreeMap::new();
            for number in numbers {
                let (from, to) = match records.sent.get(number) {
                    Some(sent) => sent,
                    None => bail!("{by:?} got {number}, which nobody sent"),
                };
                ensure!(*to == by.jid, "{by:?} got {number}, which is for {to}");
                ensure!(
                    seen.insert(number),
                    "{by:?} got {number} of {from:?}, which had been received before"
                );
                if let Some(before) = last.insert(from, *number) {
                    let of_pair =
                        |number: &&u64| records.sent.get(number).is_some_and(|sent| sent.0 == *from);
                    let all = || numbers.iter().filter(of_pair).collect::<Vec<_>>();
                    ensure!(
                        before < *number,
                        "{by:?} got {number} of {from:?} after {before}; in all {:?}",
                        all()
                    );
                }
                ensure!(
                    *number < end,
                    "{by:?} got {number} of {from:?}, sent after the next bind was answered at {end}"
                );
            }
        }
        Ok(())
    }

    /// Its size.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let records = self.records();
        let received = records.received.values().map(Vec::len).sum();
        let different: BTreeSet<&u64> = records.received.values().flatten().collect();
        Summary {
            sent: records.sent.len(),
            received,
            again: received - different.len(),
            bounced: records.bounced.len(),
            binds: records.answered.len(),
        }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        // A client that panicked has failed the test already.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_found() {
        let sent = || {
            let history = History::default();
            let (a, b) = (history.bound("a", 0), history.bound("b", 1));
            let numbers = [history.sending(&a, "b"), history.sending(&a, "b")];
            (history, a, b, numbers)
        };
        let (history, _, b, [one, two]) = sent();
        history.received(&b, one);
        assert_eq!(history.lost(0..2, &history.generations()), [two]);
        history.received(&b, two);
        history.check().unwrap();
        assert_eq!(history.silent_pairs(0), [("b".to_owned(), "a".to_owned())]);
        history.received(&b, one);
        assert!(history.check().unwrap_err().to_string().contains("received before"));

        let (history, _, b, [one, two]) = sent();
        history.received(&b, two);
        history.received(&b, one);
        assert!(history.check().unwrap_err().to_string().contains("after 1"));

        let (history, a, _, _) = sent();
        history.received(&a, 0);
        assert!(history.check().unwrap_err().to_string().contains("is for b"));

        let (history, a, b, [one, _]) = sent();
        history.received(&b, one);
        history.bound("b", 1);
        let late = history.sending(&a, "b");
        history.check().unwrap();
        history.received(&b, late);
        assert!(history.check().unwrap_err().to_string().contains("next bind"));
    }
}
