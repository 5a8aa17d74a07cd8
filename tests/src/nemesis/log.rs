//! What one client has done and seen, in its order.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};

/// A numbered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// Who writes it.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// Grows with each message of the writer.
    pub count: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.from, self.to, self.count)
    }
}

impl FromStr for Number {
    type Err = Error;

    fn from_str(text: &str) -> Result<Number> {
        let mut parts = text.split('-');
        let mut next = || parts.next().with_context(|| format!("{text:?} is no number of a message"));
        Ok(Number { from: next()?.parse()?, to: next()?.parse()?, count: next()?.parse()? })
    }
}

/// Where the server says how many stanzas it has handled (XEP-0198).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// `<a h=''/>`
    Answer,
    /// `<resumed h=''/>`: the stream goes on.
    Resumed,
    /// `<failed h=''/>`: it is over.
    Failed,
}

/// One thing that a client has done or seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A connection to the node of that number.
    Connected(usize),
    /// A stream with XEP-0198 begins: its stanzas are counted from here on.
    Enabled,
    /// A stanza is sent for the first time on this stream: a numbered message, or another one.
    Sent(Option<Number>),
    /// The server says that it has handled so many stanzas of the stream.
    Handled(Word, u32),
    /// The server does not know the stream: `<failed/>` without a number.
    Forgotten,
    /// A message came, with the id that the server gave it (XEP-0359).
    Received(Number, Option<String>),
    /// A message of one's own came back with an error.
    Refused(Number),
    /// All that has come so far is acknowledged.
    Acknowledged,
    /// The server has answered what was sent right after the last [`Entry::Acknowledged`].
    Confirmed,
    /// The connection is over.
    Broke,
}

/// All of it, each with its time in milliseconds since the run began.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Vec<(u64, Entry)>);

impl Log {
    /// What it says of one message, with the ends and beginnings of streams and connections around that.
    #[must_use]
    pub fn about(&self, number: Number) -> Vec<&(u64, Entry)> {
        let mentions = |entry: &Entry| matches!(entry, Entry::Sent(Some(n)) | Entry::Received(n, _) | Entry::Refused(n) if *n == number);
        let frames = |entry: &Entry| {
            matches!(
                entry,
                Entry::Connected(_)
                    | Entry::Enabled
                    | Entry::Broke
                    | Entry::Forgotten
                    | Entry::Handled(Word::Resumed | Word::Failed, _)
            )
        };
        let mut found = Vec::new();
        for (place, timed) in self.0.iter().enumerate().filter(|(_, (_, entry))| mentions(entry)) {
            let before = self.0[..place].iter().rev().find(|(_, entry)| frames(entry));
            let after = self.0[place..].iter().find(|(_, entry)| frames(entry));
            found.extend(before);
            found.push(timed);
            found.extend(after);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_through_text() {
        let number = Number { from: 3, to: 0, count: 17 };
        assert_eq!(number.to_string().parse::<Number>().unwrap(), number);
        assert!("3-0".parse::<Number>().is_err());
        assert!("ping".parse::<Number>().is_err());
    }
}
