//! PURE: which roster pushes a client gets, in the order of their versions (RFC 6121 §2.1.6, §2.6.3).
//!
//! Changes of one roster come from several nodes, in any order, and one may never come: its node has died between the
//! change and the word about it. A client that got a later version would take itself for up to date for ever. So each
//! push is the next version; where one is missing, the store is asked for all that the client lacks.

/// What one session's client has of its roster.
#[derive(Debug, Clone)]
pub struct Pushes {
    /// The latest version that this session has heard of.
    known: u64,
    client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It has not asked for its roster: no pushes (§2.2).
    Uninterested,
    /// It has this version, or is being sent it.
    Has(u64),
    /// It has this version, and the store is asked for what came after it.
    Lacks(u64),
}

/// What follows from a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing for this client.
    Nothing,
    /// Its push.
    Push,
    /// A version is missing before it: what came after this one is to be asked for, then [`Pushes::told`].
    Ask(u64),
}

impl Pushes {
    /// A session that knows its roster as of `version`, and whose client has not asked for it.
    #[must_use]
    pub fn new(version: u64) -> Self {
        Pushes { known: version, client: Client::Uninterested }
    }

    /// The latest version that the session has heard of.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known
    }

    /// The version that the client has, if it has asked for its roster.
    #[must_use]
    pub fn has(&self) -> Option<u64> {
        match self.client {
            Client::Uninterested => None,
            Client::Has(has) | Client::Lacks(has) => Some(has),
        }
    }

    /// Whether the client has asked for its roster.
    #[must_use]
    pub fn is_interested(&self) -> bool {
        self.client != Client::Uninterested
    }

    /// A change with a push has made the roster `version`.
    pub fn changed(&mut self, version: u64) -> Next {
        self.known = self.known.max(version);
        match self.client {
            Client::Has(has) if version == has + 1 => {
                self.client = Client::Has(version);
                Next::Push
            }
            Client::Has(has) if version > has => {
                self.client = Client::Lacks(has);
                Next::Ask(has)
            }
            _ => Next::Nothing,
        }
    }

    /// The client has been sent its roster as of `version`, whole or by pushes. What is to be asked for next, if
    /// more is known meanwhile.
    pub fn told(&mut self, version: u64) -> Option<u64> {
        let before = match self.client {
            Client::Uninterested => None,
            Client::Has(has) | Client::Lacks(has) => Some(has),
        };
        let has = before.map_or(version, |has| has.max(version));
        // A store that had nothing new is not asked again before the next change.
        let behind = self.known > has && before != Some(has);
        self.client = if behind { Client::Lacks(has) } else { Client::Has(has) };
        behind.then_some(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: u64) -> Pushes {
        let mut pushes = Pushes::new(version);
        assert_eq!(pushes.told(version), None);
        pushes
    }

    #[test]
    fn a_client_that_did_not_ask_gets_none() {
        let mut pushes = Pushes::new(7);
        assert_eq!(pushes.changed(8), Next::Nothing);
        assert_eq!((pushes.known(), pushes.is_interested()), (8, false));
    }

    #[test]
    fn each_is_the_next_version() {
        let mut pushes = told(7);
        assert_eq!([8, 8, 7, 9].map(|version| pushes.changed(version)), {
            [Next::Push, Next::Nothing, Next::Nothing, Next::Push]
        });
    }

    #[test]
    fn a_gap_is_asked_for_once_and_nothing_comes_twice() {
        let mut pushes = told(7);
        assert_eq!(pushes.changed(9), Next::Ask(7));
        assert_eq!(pushes.changed(8), Next::Nothing, "the answer has it");
        assert_eq!(pushes.changed(10), Next::Nothing);
        assert_eq!(pushes.told(9), Some(9), "the answer was older than what is known");
        assert_eq!(pushes.told(10), None);
        assert_eq!(pushes.changed(11), Next::Push);
    }

    #[test]
    fn changes_while_the_roster_was_on_its_way_are_asked_for() {
        let mut pushes = Pushes::new(7);
        pushes.changed(8);
        assert_eq!(pushes.told(7), Some(7));
        assert_eq!(pushes.told(8), None);
    }

    #[test]
    fn a_store_without_news_is_not_asked_for_ever() {
        let mut pushes = told(7);
        assert_eq!(pushes.changed(9), Next::Ask(7));
        assert_eq!(pushes.told(7), None, "a replica that lags");
        assert_eq!(pushes.changed(10), Next::Ask(7));
    }

    #[test]
    fn a_second_request_takes_nothing_back() {
        let mut pushes = told(7);
        assert_eq!(pushes.changed(8), Next::Push);
        assert_eq!(pushes.told(7), None, "a slow read");
        assert_eq!(pushes.changed(9), Next::Push);
    }
}
