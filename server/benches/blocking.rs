//! What a long block list costs a message: the sender's and the receiver's list asked, beside what the message costs
//! anyway, from its bytes to its bytes. Both sides take turns in one run; more than 10 % is a failure.
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
use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::{StreamReader, XmlEvent};
use althing_server::session::core::{LoadedPrivacy, SessionState};
use althing_server::session::rules::{Decision, Rules};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const MESSAGE: &[u8] = b"<message to='friend@example.org/desk' type='chat' id='m1'>\
    <body>Wherefore art thou, Romeo?</body></message>";

/// Messages of one turn, and turns of each side.
const MESSAGES: u32 = 20_000;
const TURNS: usize = 31;

/// Most that ten thousand entries may add, in per cent.
const ALLOWED: f64 = 10.0;

/// Two sessions that write to each other, whose users both block that many addresses.
struct Pair {
    sender: SessionState,
    receiver: SessionState,
    reader: StreamReader,
}

impl Pair {
    fn new(blocked: usize) -> Pair {
        let mut reader = StreamReader::new(Limits::AFTER_LOGIN);
        reader.next(&mut &HEADER[..]).unwrap();
        let (sender, receiver) = ("romeo@example.com/phone", "friend@example.org/desk");
        Pair { sender: session(sender, blocked), receiver: session(receiver, blocked), reader }
    }

    fn read(&mut self) -> minidom::Element {
        let (mut input, mut message) = (MESSAGE, None);
        while let Some(event) = self.reader.next(&mut input).unwrap() {
            if let XmlEvent::Element(element) = event {
                message = Some(element);
            }
        }
        message.unwrap()
    }

    /// Nanoseconds of one message.
    fn turn(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..MESSAGES {
            let stanza = Stanza::received(self.read(), self.sender.jid()).unwrap();
            let (from, to) = (stanza.from().unwrap(), stanza.to().unwrap());
            assert_eq!(self.sender.decide(to, Kinds::outbound(stanza.kind())), Decision::Allow);
            assert_eq!(self.receiver.decide(from, Kinds::inbound(stanza.kind())), Decision::Allow);
            black_box(stanza.to_bytes());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(MESSAGES)
    }
}

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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let sizes = [0, 1, 100, 10_000];
    let mut pairs = sizes.map(Pair::new);
    let mut times = sizes.map(|_| Vec::with_capacity(TURNS));
    for _ in 0..TURNS {
        for (pair, times) in pairs.iter_mut().zip(&mut times) {
            times.push(pair.turn());
        }
    }
    let medians = times.map(median);
    let more = |time: f64| (time / medians[0] - 1.0) * 100.0;
    for (blocked, time) in sizes.iter().zip(medians) {
        println!("{blocked:>7} blocked: {time:7.0} ns a message, {:+.1} %", more(time));
    }
    let cost = more(medians[3]);
    assert!(cost <= ALLOWED, "a long list costs {cost:.1} %, more than {ALLOWED} %");
}
