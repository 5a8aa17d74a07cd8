//! The bounded queue in front of a component.
//!
//! Policy when full, in stanzas or in bytes (`components.inbox_stanzas`, `components.inbox_bytes`): nothing is taken.
//! The router answers a message or request with `resource-constraint` and drops presence; both are counted. From half
//! of it on a client that writes to the component is slowed down, as for a session that does not keep up. What the
//! server itself has to tell a component (sessions that were lost, a new configuration) always has room: few nodes
//! die, and few operators type.
//!
//! Nothing gets in behind the end: when the queue is closed, what is in it is given back under the same lock.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use althing_proto::stanza::Stanza;

use super::{Refused, Statistic};
use crate::config::Config;
use crate::session::losses::Lost;
use crate::session::pressure::Pressure;

/// Most letters, and most bytes of them but for the first, that a component is handed at once.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// A stanza for a component, with what is on the envelope: the lane by which it was routed (T8).
#[derive(Debug, Clone)]
pub struct Letter {
    /// The lane: see [`balance`](super::balance).
    pub lane: u8,
    /// The stanza, with its own addresses.
    pub stanza: Stanza,
}

impl Letter {
    /// Its size on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stanza.to_bytes().len()
    }
}

/// What is handed to a component's host.
#[derive(Debug)]
pub enum Handed {
    /// Letters; more may follow.
    Letters(VecDeque<Letter>),
    /// Sessions that were lost with their node.
    Lost(Arc<Lost>),
    /// A configuration that holds from now on.
    Configured(Arc<Config>),
    /// Somebody asks what the component counts.
    Asked(oneshot::Sender<Vec<Statistic>>),
}

#[derive(Debug)]
enum Entry {
    Letter(Letter),
    Other(Handed),
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    /// Letters that are queued or being handled, and their bytes.
    letters: usize,
    bytes: usize,
    most_letters: usize,
    most_bytes: usize,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    filled: Notify,
    /// Shows senders that the component does not keep up.
    pressure: Pressure,
}

impl Inbox {
    /// An empty inbox with those bounds.
    #[must_use]
    pub fn new(most_letters: usize, most_bytes: usize) -> Self {
        let state =
            State { entries: VecDeque::new(), letters: 0, bytes: 0, most_letters, most_bytes, closed: false };
        Inbox { state: Mutex::new(state), filled: Notify::new(), pressure: Pressure::new(0) }
    }

    /// Changes the bounds; what waits stays.
    pub fn set_bounds(&self, most_letters: usize, most_bytes: usize) {
        let mut state = self.state.lock();
        (state.most_letters, state.most_bytes) = (most_letters, most_bytes);
        self.show(&state);
    }

    /// Puts a letter in. A single one of any size fits into an empty inbox.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn put(&self, letter: Letter) -> Result<(), Refused> {
        let bytes = letter.bytes();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Ending);
        }
        let fits =
            state.letters < state.most_letters && state.bytes.saturating_add(bytes) <= state.most_bytes;
        if !fits && state.letters > 0 {
            return Err(Refused::Full);
        }
        state.letters += 1;
        state.bytes += bytes;
        state.entries.push_back(Entry::Letter(letter));
        self.show(&state);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts in what the server has to tell, in its order among the letters. `false` where the component has ended.
    pub fn tell(&self, what: Handed) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.entries.push_back(Entry::Other(what));
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Waits for something and takes it. Letters count as waiting until [`Inbox::done`].
    pub async fn take(&self) -> Handed {
        loop {
            if let Some(handed) = self.take_now() {
                return handed;
            }
            self.filled.notified().await;
        }
    }

    /// As [`Inbox::take`] where something is there; `None` where nothing is.
    #[must_use]
    pub fn take_now(&self) -> Option<Handed> {
        let mut state = self.state.lock();
        let (mut letters, mut bytes) = (VecDeque::new(), 0);
        loop {
            match state.entries.pop_front() {
                Some(Entry::Letter(letter)) => {
                    bytes += letter.bytes();
                    letters.push_back(letter);
                    if letters.len() >= BATCH || bytes >= BATCH_BYTES {
                        return Some(Handed::Letters(letters));
                    }
                }
                Some(Entry::Other(what)) if letters.is_empty() => return Some(what),
                Some(other) => {
                    state.entries.push_front(other);
                    return Some(Handed::Letters(letters));
                }
                None => return (!letters.is_empty()).then_some(Handed::Letters(letters)),
            }
        }
    }

    /// Counts a letter that the host has made itself, as if it had been taken.
    pub fn count_in(&self, letter: &Letter) {
        let mut state = self.state.lock();
        state.letters += 1;
        state.bytes += letter.bytes();
    }

    /// That much of what was taken is handled.
    pub fn done(&self, letters: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.letters = state.letters.saturating_sub(letters);
        state.bytes = state.bytes.saturating_sub(bytes);
        self.show(&state);
    }

    /// Closes the inbox. `taken`, what was taken and not handled, and what is in it are given to `back` one by one,
    /// in their order and before anybody else learns that it is closed.
    pub fn close(&self, taken: VecDeque<Letter>, mut back: impl FnMut(Letter)) {
        let mut state = self.state.lock();
        state.closed = true;
        (state.letters, state.bytes) = (0, 0);
        taken.into_iter().for_each(&mut back);
        for entry in state.entries.drain(..) {
            if let Entry::Letter(letter) = entry {
                back(letter);
            }
        }
        self.show(&state);
    }

    /// Whether nothing is taken any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How many letters wait, and how many bytes of them.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.letters, state.bytes)
    }

    /// Whether more than half of the room is taken, and not yet three quarters of it free again.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.pressure.is_congested()
    }

    /// Waits until the component keeps up again, for a bounded time: the pace of a client that writes to it.
    pub async fn brake(&self) {
        self.pressure.brake().await;
    }

    fn show(&self, state: &State) {
        let above =
            |part: usize| state.letters > state.most_letters / part || state.bytes > state.most_bytes / part;
        if above(2) {
            self.pressure.set_congested(true);
        } else if !above(4) {
            self.pressure.set_congested(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u32) -> Letter {
        let xml = format!("<message xmlns='jabber:client' id='{id}'/>");
        Letter { lane: 0, stanza: Stanza::parse(xml.parse().unwrap()).unwrap() }
    }

    fn ids(letters: &VecDeque<Letter>) -> Vec<&str> {
        letters.iter().filter_map(|letter| letter.stanza.id()).collect()
    }

    #[actix_rt::test]
    async fn t13_an_inbox_is_bounded_in_stanzas_and_in_bytes_until_they_are_handled() {
        let bytes = letter(1).bytes();
        for (most_letters, most_bytes) in [(2, 1 << 20), (100, 2 * bytes + 1)] {
            let inbox = Inbox::new(most_letters, most_bytes);
            assert_eq!((inbox.put(letter(1)), inbox.put(letter(2))), (Ok(()), Ok(())));
            assert_eq!(inbox.put(letter(3)), Err(Refused::Full));
            let Handed::Letters(letters) = inbox.take().await else { panic!("no letters") };
            assert_eq!(ids(&letters), ["1", "2"]);
            assert_eq!(inbox.put(letter(3)), Err(Refused::Full), "taken, but not handled");
            inbox.done(1, bytes);
            assert_eq!(inbox.put(letter(3)), Ok(()));
            assert_eq!(inbox.waiting(), (2, 2 * bytes));
        }
        assert_eq!(Inbox::new(16, 1).put(letter(1)), Ok(()), "a single one of any size");
    }

    /// T15: a bound is changed while the component runs.
    #[test]
    fn t15_bounds_change_at_run_time() {
        let inbox = Inbox::new(1, 1 << 20);
        inbox.put(letter(1)).unwrap();
        assert_eq!(inbox.put(letter(2)), Err(Refused::Full));
        inbox.set_bounds(8, 1 << 20);
        assert_eq!(inbox.put(letter(2)), Ok(()));
    }

    #[actix_rt::test]
    async fn senders_see_a_component_that_does_not_keep_up() {
        let inbox = Inbox::new(8, 1 << 20);
        (0..4).for_each(|id| inbox.put(letter(id)).unwrap());
        assert!(!inbox.is_congested());
        inbox.put(letter(4)).unwrap();
        assert!(inbox.is_congested());
        inbox.done(2, 0);
        assert!(inbox.is_congested());
        inbox.done(1, 0);
        assert!(!inbox.is_congested());
        inbox.brake().await;
    }

    #[actix_rt::test]
    async fn what_the_server_tells_keeps_its_place_and_has_room() {
        let inbox = Inbox::new(1, 1);
        inbox.put(letter(1)).unwrap();
        assert!(inbox.tell(Handed::Configured(Arc::default())));
        assert!(matches!(inbox.take().await, Handed::Letters(_)));
        inbox.done(1, letter(1).bytes());
        inbox.put(letter(2)).unwrap();
        assert!(matches!(inbox.take().await, Handed::Configured(_)));
        assert!(matches!(inbox.take().await, Handed::Letters(_)));
    }

    #[actix_rt::test]
    async fn a_closed_inbox_gives_back_all_in_order() {
        let inbox = Inbox::new(8, 1 << 20);
        (0..3).for_each(|id| inbox.put(letter(id)).unwrap());
        let Handed::Letters(mut taken) = inbox.take().await else { panic!("no letters") };
        taken.pop_front();
        inbox.put(letter(3)).unwrap();
        let mut back = VecDeque::new();
        inbox.close(taken, |letter| back.push_back(letter));
        assert_eq!(ids(&back), ["1", "2", "3"]);
        assert_eq!(inbox.put(letter(4)), Err(Refused::Ending));
        assert!(!inbox.tell(Handed::Configured(Arc::default())));
    }
}
