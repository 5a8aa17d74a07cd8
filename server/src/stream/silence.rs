//! Notices a client that says nothing: it is asked whether it is there, then given up (XEP-0199 §4.2, RFC 6120 §4.6.4).
//!
//! One timer a connection, moved only when it fires: a client that talks costs the reading of a clock, one that is
//! silent a wake-up in `limits.client_ping_s`.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use althing_proto::jid::{FullJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use crate::config::Limits;

/// What silence has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noticed {
    /// The client is to be asked.
    Silent,
    /// It was asked, and has not said a word.
    Gone,
}

/// PURE: how long a client has been silent, and what that means.
struct Watch {
    patience: Duration,
    answer: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Watch {
    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// When to look again, and what is to be done now.
    fn look(&mut self, now: Instant) -> (Instant, Option<Noticed>) {
        let due = self.asked.map_or(self.heard + self.patience, |asked| asked + self.answer);
        if now < due {
            (due, None)
        } else if self.asked.is_some() {
            (due, Some(Noticed::Gone))
        } else {
            self.asked = Some(now);
            (now + self.answer, Some(Noticed::Silent))
        }
    }
}

/// The watch over one client.
pub(super) struct Silence {
    /// `None`: nobody asks.
    watch: Option<Watch>,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    /// From now on, by `limits.client_ping_s` and `limits.client_ping_timeout_s`.
    pub(super) fn new(limits: &Limits) -> Self {
        let answer = Duration::from_secs(limits.client_ping_timeout_s);
        let watch = |patience| Watch { patience, answer, heard: Instant::now(), asked: None };
        let patience = limits.client_ping();
        Silence { watch: patience.map(watch), timer: Box::pin(sleep(patience.unwrap_or_default())) }
    }

    /// The client has sent something: whatever it is, it is there. An error in answer to a ping says so too.
    pub(super) fn heard(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.heard(Instant::now());
        }
    }

    /// Returns when there is something to be done. May be dropped where it waits.
    pub(super) async fn noticed(&mut self) -> Noticed {
        let Some(watch) = &mut self.watch else { std::future::pending().await };
        loop {
            self.timer.as_mut().await;
            let (again, noticed) = watch.look(Instant::now());
            self.timer.as_mut().reset(again);
            if let Some(noticed) = noticed {
                return noticed;
            }
        }
    }
}

/// The question to the client. Nobody waits for its answer: anything that comes is one.
pub(super) fn ping(to: &FullJid) -> Stanza {
    let iq = Element::builder("iq", ns::CLIENT)
        .set(name!("type"), IqType::Get.name())
        .set(name!("id"), "are-you-there")
        .append(Element::bare("ping", ns::PING))
        .build();
    let from = Jid::from_parts(None, to.domain(), None);
    Stanza::from_parts(Kind::Iq(IqType::Get), Some(from), Some(to.clone().into()), iq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_and_then_the_end() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (patience, answer) = (Duration::from_secs(180), Duration::from_secs(60));
        let mut watch = Watch { patience, answer, heard: begun, asked: None };
        assert_eq!(watch.look(at(179)), (at(180), None));
        assert_eq!(watch.look(at(181)), (at(241), Some(Noticed::Silent)));
        assert_eq!(watch.look(at(240)), (at(241), None));
        watch.heard(at(240));
        assert_eq!(watch.look(at(241)), (at(420), None), "a word begins the wait anew");
        assert_eq!(watch.look(at(420)), (at(480), Some(Noticed::Silent)));
        assert_eq!(watch.look(at(480)).1, Some(Noticed::Gone));
    }
}
