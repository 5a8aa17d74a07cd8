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
use crate::node::NodeContext;

/// What silence has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noticed {
    /// The client is to be asked.
    Silent,
    /// It was asked, and has not said a word.
    Gone,
}

/// How long a client that nobody asks is left alone until the configuration is looked at again.
const NOBODY_ASKS: Duration = Duration::from_secs(600);

/// PURE: how long a client has been silent, and what that means.
struct Watch {
    heard: Instant,
    asked: Option<Instant>,
}

impl Watch {
    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// When to look again, and what is to be done now, where a client is asked after so much silence, if at all, and has
    /// so long for its answer.
    fn look(
        &mut self,
        now: Instant,
        patience: Option<Duration>,
        answer: Duration,
    ) -> (Instant, Option<Noticed>) {
        let Some(patience) = patience else {
            self.asked = None;
            return (now + NOBODY_ASKS, None);
        };
        let due = self.asked.map_or(self.heard + patience, |asked| asked + answer);
        if now < due {
            (due, None)
        } else if self.asked.is_some() {
            (due, Some(Noticed::Gone))
        } else {
            self.asked = Some(now);
            (now + answer, Some(Noticed::Silent))
        }
    }
}

/// The watch over one client.
pub(super) struct Silence {
    watch: Watch,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    /// From now on, by `limits.client_ping_s` and `limits.client_ping_timeout_s`.
    pub(super) fn new(limits: &Limits) -> Self {
        let watch = Watch { heard: Instant::now(), asked: None };
        Silence { watch, timer: Box::pin(sleep(limits.client_ping().unwrap_or(NOBODY_ASKS))) }
    }

    /// The client has sent something: whatever it is, it is there. An error in answer to a ping says so too.
    pub(super) fn heard(&mut self) {
        self.watch.heard(Instant::now());
    }

    /// Returns when there is something to be done, by the configuration of the moment when the timer fires: a reload
    /// holds from the next look on. May be dropped where it waits.
    pub(super) async fn noticed(&mut self, node: &NodeContext) -> Noticed {
        loop {
            self.timer.as_mut().await;
            let (patience, answer) = {
                let config = node.config();
                (config.limits.client_ping(), Duration::from_secs(config.limits.client_ping_timeout_s))
            };
            let (again, noticed) = self.watch.look(Instant::now(), patience, answer);
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
        let (patience, answer) = (Some(Duration::from_secs(180)), Duration::from_secs(60));
        let mut watch = Watch { heard: begun, asked: None };
        assert_eq!(watch.look(at(179), patience, answer), (at(180), None));
        assert_eq!(watch.look(at(181), patience, answer), (at(241), Some(Noticed::Silent)));
        assert_eq!(watch.look(at(240), patience, answer), (at(241), None));
        watch.heard(at(240));
        assert_eq!(watch.look(at(241), patience, answer), (at(420), None), "a word begins the wait anew");
        assert_eq!(watch.look(at(420), patience, answer), (at(480), Some(Noticed::Silent)));
        assert_eq!(watch.look(at(480), patience, answer).1, Some(Noticed::Gone));
    }

    /// An open stream follows a reload: shorter, longer, not at all, and again.
    #[actix_rt::test]
    async fn the_times_are_those_of_now() {
        let node = NodeContext::for_tests();
        node.configure(|config| config.limits.client_ping_s = 1);
        let mut silence = Silence::new(&node.config().limits);
        let began = Instant::now();
        node.configure(|config| config.limits.client_ping_s = 2);
        assert_eq!(silence.noticed(&node).await, Noticed::Silent);
        assert!(began.elapsed() >= Duration::from_secs(2), "by the old time");
        let at = |seconds| began + Duration::from_secs(seconds);
        let answer = Duration::from_secs(9);
        assert_eq!(silence.watch.look(at(100), None, answer), (at(700), None), "nobody is asked any more");
        assert_eq!(silence.watch.look(at(700), Some(answer), answer).1, Some(Noticed::Silent));
    }
}
