//! What a long block list costs a message: the sender's and the receiver's list asked, beside what the message costs
//! anyway, from its element to its bytes.
//!
//! `cargo bench -p althing-server --bench blocking`

// A benchmark's result is what it prints, and a failure of its own set-up ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hash::RandomState;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{FullJid, Jid};
use althing_proto::privacy::{Entry, Kinds, List, Lists};
use althing_proto::stanza::Stanza;
use althing_server::session::core::{LoadedPrivacy, SessionState};
use althing_server::session::rules::{Decision, Rules};

const ROUNDS: u32 = 200_000;

/// A session whose user blocks that many: addresses of all four forms.
fn session(jid: &str, blocked: usize) -> SessionState {
    let entries = (0..blocked).map(|number| {
        let jid = match number % 4 {
            0 => format!("user{number}@example.net"),
            1 => format!("user{number}@example.net/phone"),
            2 => format!("host{number}.example.net"),
            _ => format!("host{number}.example.net/bot"),
        };
        Entry { jid: Jid::new(&jid).unwrap(), order: None }
    });
    let list = List { number: 1, entries: entries.collect(), items: Vec::new() };
    let rules = Rules::of(&list, &[], &RandomState::new()).map(Arc::new);
    let lists = Lists { version: 1, default: Some(1), heads: Vec::new(), list: Some(list) };
    let mut state = SessionState::new(FullJid::new(jid).unwrap(), BindIndex(1), 1, Vec::new());
    state.set_privacy(LoadedPrivacy { lists, rules });
    state
}

/// Nanoseconds of one message, the best of some runs.
fn message(sender: &SessionState, receiver: &SessionState) -> f64 {
    let xml = "<message xmlns='jabber:client' to='friend@example.org/desk' type='chat' id='m1'>\
               <body>Wherefore art thou, Romeo?</body></message>";
    let element: minidom::Element = xml.parse().unwrap();
    let run = || {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let stanza = Stanza::received(element.clone(), sender.jid()).unwrap();
            let (from, to) = (stanza.from().unwrap(), stanza.to().unwrap());
            assert_eq!(sender.decide(to, Kinds::outbound(stanza.kind())), Decision::Allow);
            assert_eq!(receiver.decide(from, Kinds::inbound(stanza.kind())), Decision::Allow);
            black_box(stanza.to_bytes());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    (0..5).map(|_| run()).fold(f64::MAX, f64::min)
}

fn main() {
    let pair =
        |blocked| (session("romeo@example.com/phone", blocked), session("friend@example.org/desk", blocked));
    let (sender, receiver) = pair(0);
    let none = message(&sender, &receiver);
    println!("{:>7} blocked: {none:7.0} ns a message", 0);
    for blocked in [1, 100, 10_000] {
        let (sender, receiver) = pair(blocked);
        let some = message(&sender, &receiver);
        println!("{blocked:>7} blocked: {some:7.0} ns a message, {:+.1} %", (some / none - 1.0) * 100.0);
    }
}
