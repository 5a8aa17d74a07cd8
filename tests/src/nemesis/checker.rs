//! Reads the logs of all clients and says what was promised and did not hold. PURE.
//!
//! Promised is, for a message that the server has acknowledged (by `<a/>`, `<resumed/>` or `<failed/>`):
//!
//! - It is **delivered**: its receiver has got it, at the latest when it logged in once more at the end.
//! - **Once.** A second copy is a repetition that must have its reason, and can be told from a new message:
//!   - the same stanza-id: its receiver's stream ended without being resumed, and the server had not had the
//!     receiver's acknowledgement for long enough to note it ([`Rules`]);
//!   - another stanza-id, the same origin-id: its sender wrote it once more, on a new stream, because the server had
//!     said that it did not have it. There are no more ids of a message than streams on which it was written.
//! - **In order**: what one client writes to another arrives for the first time in the order in which it was first
//!   written, across all streams of both. Repetitions come in their order too, but behind what came first.
//! - The **number** of handled stanzas that the server tells never shrinks on a stream, whoever tells it, is never more
//!   than was sent, and is never forgotten once it has been told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::log::{Entry, Log, Number, Word};

/// What may differ from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// How long after it has heard that a message arrived the server may take to note it, in milliseconds in which the
    /// cluster is whole.
    pub settle_ms: u64,
    /// From when to when it was not: a node that is cut off from the store hears that messages arrive until it is
    /// suspended, and its streams end later; how much later the machine says.
    pub faults: &'a [(u64, u64)],
}

impl Rules<'_> {
    /// How long the cluster was whole between the two moments.
    fn whole(&self, from: u64, to: u64) -> u64 {
        let broken = |(begin, end): &(u64, u64)| (*end).min(to).saturating_sub((*begin).max(from));
        to.saturating_sub(from).saturating_sub(self.faults.iter().map(broken).sum())
    }
}

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// Acknowledged, and never delivered.
    Lost(Number),
    /// Came to somebody else than its receiver, or was never written.
    Stray(Number),
    /// Came again on one stream, or though the server knew that it had arrived.
    Again(Number),
    /// Has more stanza-ids than there were streams on which it was written.
    Doubled(Number),
    /// Came for the first time after a later one of the same pair.
    OutOfOrder {
        /// The one that came late.
        late: Number,
        /// The one that had come before.
        before: Number,
    },
    /// The server has told client `of` a number that is smaller than one before, or too large.
    WrongCount {
        /// The client.
        of: usize,
        /// What it was told.
        told: u32,
        /// The smallest that could be right.
        least: u32,
        /// The largest.
        most: u32,
    },
    /// The server has acknowledged stanzas of a stream of client `of`, and later did not know it.
    Forgotten {
        /// The client.
        of: usize,
        /// What was acknowledged.
        told: u32,
    },
}

impl Breach {
    /// Its kind in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Breach::Lost(_) => "lost",
            Breach::Stray(_) => "stray",
            Breach::Again(_) => "again",
            Breach::Doubled(_) => "doubled",
            Breach::OutOfOrder { .. } => "out of order",
            Breach::WrongCount { .. } => "wrong count",
            Breach::Forgotten { .. } => "forgotten",
        }
    }
}

/// How much there was of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages that the server acknowledged.
    pub acknowledged: usize,
    /// Messages that arrived.
    pub delivered: usize,
    /// Copies beyond the first.
    pub repeated: usize,
    /// Messages that came under two ids: delivered, not committed when their node was lost, and so written anew.
    pub twice: usize,
    /// Messages that came back with an error.
    pub refused: usize,
    /// Streams that were resumed.
    pub resumed: usize,
    /// Streams that were not, with the number of what was handled.
    pub failed: usize,
    /// Streams that were not, without.
    pub forgotten: usize,
    /// Acknowledged messages that never arrived.
    pub lost: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { acknowledged, delivered, repeated, twice, refused, resumed, failed, forgotten, lost } =
            self;
        write!(
            f,
            "resumed {resumed} failed {failed} forgotten {forgotten} refused {refused} \
             acknowledged {acknowledged} delivered {delivered} repeated {repeated} twice {twice} lost {lost}"
        )
    }
}

/// One copy of a message at its receiver.
struct Copy {
    id: Option<String>,
    /// Which stream of the receiver it came on.
    stream: usize,
    /// When the server was known to know that it had arrived.
    confirmed: Option<u64>,
    /// When its connection ended.
    broke: Option<u64>,
}

/// What the logs say, gathered.
#[derive(Default)]
struct Findings {
    figures: Figures,
    breaches: Vec<Breach>,
    /// On how many streams each message was written.
    written: BTreeMap<Number, usize>,
    acknowledged: BTreeSet<Number>,
    refused: BTreeSet<Number>,
    copies: BTreeMap<Number, Vec<Copy>>,
}

/// What did not hold, and how much there was; the log of client `n` is the one at index `n`.
#[must_use]
pub fn check(logs: &[Log], rules: Rules<'_>) -> (Figures, Vec<Breach>) {
    let mut findings = Findings::default();
    for (client, log) in logs.iter().enumerate() {
        findings.read_sent(client, log);
    }
    for (client, log) in logs.iter().enumerate() {
        findings.read_received(client, log);
    }
    findings.judge(rules)
}

impl Findings {
    /// What the client has written, and what the server has said of it.
    fn read_sent(&mut self, client: usize, log: &Log) {
        let (mut stream, mut told): (Vec<Option<Number>>, u32) = (Vec::new(), 0);
        for (_, entry) in &log.0 {
            match entry {
                Entry::Enabled => (stream, told) = (Vec::new(), 0),
                Entry::Sent(message) => {
                    stream.push(*message);
                    if let Some(message) = message {
                        *self.written.entry(*message).or_default() += 1;
                    }
                }
                Entry::Handled(word, handled) => {
                    let most = u32::try_from(stream.len()).unwrap_or(u32::MAX);
                    if !(told..=most).contains(handled) {
                        let wrong = Breach::WrongCount { of: client, told: *handled, least: told, most };
                        self.breaches.push(wrong);
                    }
                    told = told.max(*handled);
                    self.acknowledged.extend(stream.iter().take(told as usize).flatten());
                    match word {
                        Word::Answer => {}
                        Word::Resumed => self.figures.resumed += 1,
                        Word::Failed => self.figures.failed += 1,
                    }
                }
                Entry::Forgotten => {
                    self.figures.forgotten += 1;
                    if told > 0 {
                        self.breaches.push(Breach::Forgotten { of: client, told });
                    }
                }
                Entry::Refused(number) => {
                    self.refused.insert(*number);
                }
                Entry::Connected(_)
                | Entry::Received(..)
                | Entry::Acknowledged
                | Entry::Confirmed
                | Entry::Broke => {}
            }
        }
    }

    /// What the client has got, and what the server knew of that.
    fn read_received(&mut self, client: usize, log: &Log) {
        let mut stream = 0;
        // What came on this stream and is not known to be known yet, and how many of them were acknowledged.
        let (mut open, mut acknowledged): (Vec<(Number, usize)>, usize) = (Vec::new(), 0);
        // What came on this connection.
        let mut connection: Vec<(Number, usize)> = Vec::new();
        let mut last: BTreeMap<usize, Number> = BTreeMap::new();
        for (at, entry) in &log.0 {
            match entry {
                Entry::Enabled => {
                    stream += 1;
                    (open, acknowledged) = (Vec::new(), 0);
                }
                Entry::Received(number, id) => {
                    if number.to != client || !self.written.contains_key(number) {
                        self.breaches.push(Breach::Stray(*number));
                        continue;
                    }
                    let copies = self.copies.entry(*number).or_default();
                    if copies.is_empty() {
                        let before = last.entry(number.from).or_insert(*number);
                        if before.count > number.count {
                            self.breaches.push(Breach::OutOfOrder { late: *number, before: *before });
                        } else {
                            *before = *number;
                        }
                    }
                    open.push((*number, copies.len()));
                    connection.push((*number, copies.len()));
                    copies.push(Copy { id: id.clone(), stream, confirmed: None, broke: None });
                }
                Entry::Acknowledged => acknowledged = open.len(),
                Entry::Confirmed => {
                    self.confirm(open.drain(..acknowledged), *at);
                    acknowledged = 0;
                }
                // The client has told what it has got, and the server has taken its word.
                Entry::Handled(Word::Resumed, _) => {
                    self.confirm(open.drain(..), *at);
                    acknowledged = 0;
                }
                Entry::Broke => {
                    acknowledged = 0;
                    for (number, copy) in connection.drain(..) {
                        if let Some(copy) = self.copies.get_mut(&number).and_then(|all| all.get_mut(copy)) {
                            copy.broke = Some(*at);
                        }
                    }
                }
                Entry::Connected(_)
                | Entry::Sent(_)
                | Entry::Handled(..)
                | Entry::Forgotten
                | Entry::Refused(_) => {}
            }
        }
    }

    fn confirm(&mut self, copies: impl Iterator<Item = (Number, usize)>, at: u64) {
        for (number, copy) in copies {
            if let Some(copy) = self.copies.get_mut(&number).and_then(|all| all.get_mut(copy)) {
                copy.confirmed = Some(at);
            }
        }
    }

    fn judge(mut self, rules: Rules<'_>) -> (Figures, Vec<Breach>) {
        for (number, copies) in &self.copies {
            self.figures.repeated += copies.len() - 1;
            let written = self.written.get(number).copied().unwrap_or_default();
            let ids: BTreeSet<&str> = copies.iter().filter_map(|copy| copy.id.as_deref()).collect();
            self.figures.twice += usize::from(ids.len() > 1);
            if ids.len() > written {
                self.breaches.push(Breach::Doubled(*number));
            }
            let again = copies.iter().enumerate().skip(1).any(|(index, copy)| {
                let earlier = &copies[..index];
                let repeats =
                    earlier.iter().any(|before| before.id == copy.id && !before.may_repeat(copy, rules));
                // Copies without an id may be those of several streams of the sender.
                repeats && (copy.id.is_some() || index >= written)
            });
            if again {
                self.breaches.push(Breach::Again(*number));
            }
        }
        for number in &self.acknowledged {
            if !self.copies.contains_key(number) && !self.refused.contains(number) {
                self.figures.lost += 1;
                self.breaches.push(Breach::Lost(*number));
            }
        }
        self.figures.acknowledged = self.acknowledged.len();
        self.figures.delivered = self.copies.len();
        self.figures.refused = self.refused.len();
        self.breaches.sort();
        (self.figures, self.breaches)
    }
}

impl Copy {
    /// Whether this one may be followed by `later` with the same id.
    fn may_repeat(&self, later: &Copy, rules: Rules<'_>) -> bool {
        let known_for = match (self.confirmed, self.broke) {
            (Some(confirmed), Some(broke)) => rules.whole(confirmed, broke),
            _ => 0,
        };
        self.stream != later.stream && known_for <= rules.settle_ms
    }
}

#[cfg(test)]
mod tests;
