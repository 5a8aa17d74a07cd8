//! Sessions of commands (XEP-0050 §3.3): begun by one full JID, for it alone, on the node of its session. A client stays on
//! one node, so no other node has to know of them; they end with the process.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use althing_proto::form::{Answers, Form};
use althing_proto::jid::{BareJid, Jid};
use althing_proto::time::Timestamp;

/// Most sessions of a node.
const MOST: usize = 1_000;

/// Most sessions of an account: one more ends its oldest.
const MOST_OF_ACCOUNT: usize = 10;

/// A session that nobody goes on with for so long has ended.
const PATIENCE: Duration = Duration::from_secs(600);

/// A command that waits for an answer.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// The command's node.
    pub(super) command: &'static str,
    /// The answers to the forms before.
    pub(super) answers: Vec<Answers>,
    /// The form that waits.
    pub(super) asked: Form,
    /// Whether its answer ends the command.
    pub(super) last: bool,
}

/// Why there is no session of that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSession {
    /// It has ended.
    Expired,
    /// It was never begun by this asker on this node.
    Unknown,
}

/// PURE: the sessions by their ids.
#[derive(Default)]
struct Table {
    sessions: HashMap<String, Entry>,
    begun: u64,
}

struct Entry {
    owner: BareJid,
    number: u64,
    until: Timestamp,
    waiting: Waiting,
}

impl Table {
    /// Keeps a session; `false` where there are too many.
    fn put(&mut self, id: String, owner: BareJid, waiting: Waiting, now: Timestamp, most: usize) -> bool {
        self.sessions.retain(|_, entry| entry.until > now);
        if !self.sessions.contains_key(&id) {
            let own = self.sessions.iter().filter(|(_, entry)| entry.owner == owner);
            let oldest = own.clone().min_by_key(|(_, entry)| entry.number).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| own.count() >= MOST_OF_ACCOUNT) {
                self.sessions.remove(&oldest);
            }
            if self.sessions.len() >= most {
                return false;
            }
        }
        self.begun += 1;
        let entry = Entry { owner, number: self.begun, until: now.after(PATIENCE), waiting };
        self.sessions.insert(id, entry);
        true
    }

    fn take(&mut self, id: &str, now: Timestamp) -> Option<Waiting> {
        self.sessions.remove(id).filter(|entry| entry.until > now).map(|entry| entry.waiting)
    }
}

/// The sessions of a node.
pub struct CommandSessions {
    table: Mutex<Table>,
    /// Signs ids, so that one that has ended is told from one that never was without remembering any.
    key: Option<hmac::Key>,
    random: SystemRandom,
}

impl Default for CommandSessions {
    fn default() -> Self {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).ok();
        CommandSessions { table: Mutex::default(), key, random }
    }
}

impl CommandSessions {
    /// A new id for `asker`; `None` where the system has no randomness to give.
    pub(super) fn id(&self, asker: &Jid) -> Option<String> {
        let mut nonce = [0; 8];
        self.random.fill(&mut nonce).ok()?;
        let nonce = hex(&nonce);
        let tag = self.tag(&nonce, asker)?;
        Some(format!("{nonce}{tag}"))
    }

    fn tag(&self, nonce: &str, asker: &Jid) -> Option<String> {
        let tag = hmac::sign(self.key.as_ref()?, format!("{nonce} {asker}").as_bytes());
        tag.as_ref().get(..16).map(hex)
    }

    /// Keeps a session until its asker goes on; `false` where the node has too many.
    pub(super) fn put(&self, id: String, asker: &Jid, waiting: Waiting, now: Timestamp) -> bool {
        self.table.lock().put(id, asker.to_bare(), waiting, now, MOST)
    }

    /// Takes a session out, to go on with it.
    pub(super) fn take(&self, id: &str, asker: &Jid, now: Timestamp) -> Result<Waiting, NoSession> {
        let own = id.get(..16).and_then(|nonce| self.tag(nonce, asker));
        let signed = own.zip(id.get(16..)).is_some_and(|(tag, given)| tag == given);
        if !signed {
            return Err(NoSession::Unknown);
        }
        self.table.lock().take(id, now).ok_or(NoSession::Expired)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(command: &'static str) -> Waiting {
        Waiting { command, answers: Vec::new(), asked: Form::ask("T"), last: true }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn a_session_is_its_askers_and_ends_once() {
        let sessions = CommandSessions::default();
        let (alice, phone) = (Jid::new("alice@a/desk").unwrap(), Jid::new("alice@a/phone").unwrap());
        let id = sessions.id(&alice).unwrap();
        assert_ne!(id, sessions.id(&alice).unwrap());
        assert!(sessions.put(id.clone(), &alice, waiting("x"), NOW));
        assert_eq!(sessions.take(&id, &phone, NOW).unwrap_err(), NoSession::Unknown);
        assert_eq!(sessions.take(&id, &alice, NOW).unwrap().command, "x");
        assert_eq!(sessions.take(&id, &alice, NOW).unwrap_err(), NoSession::Expired);
        for none in ["", "x", "ä0123456789abcdefg", &"0".repeat(48)] {
            assert_eq!(sessions.take(none, &alice, NOW).unwrap_err(), NoSession::Unknown, "{none}");
        }
    }

    #[test]
    fn a_session_ends_when_nobody_goes_on() {
        let sessions = CommandSessions::default();
        let alice = Jid::new("alice@a/desk").unwrap();
        let id = sessions.id(&alice).unwrap();
        sessions.put(id.clone(), &alice, waiting("x"), NOW);
        assert_eq!(sessions.take(&id, &alice, NOW.after(PATIENCE)).unwrap_err(), NoSession::Expired);
    }

    #[test]
    fn sessions_have_their_bounds() {
        let mut table = Table::default();
        let owner = |name: &str| BareJid::new(name).unwrap();
        for number in 0..=MOST_OF_ACCOUNT {
            assert!(table.put(format!("a{number}"), owner("a@a"), waiting("x"), NOW, 100));
        }
        assert!(table.take("a0", NOW).is_none(), "the oldest has gone");
        assert!(table.take("a1", NOW).is_some());
        assert!(table.put("b".into(), owner("b@a"), waiting("x"), NOW, MOST_OF_ACCOUNT));
        assert!(!table.put("c".into(), owner("c@a"), waiting("x"), NOW, MOST_OF_ACCOUNT), "the node is full");
        assert!(table.put("b".into(), owner("b@a"), waiting("x"), NOW, MOST_OF_ACCOUNT), "but goes on");
        assert!(table.put("c".into(), owner("c@a"), waiting("x"), NOW.after(PATIENCE), 1), "time makes room");
    }
}
