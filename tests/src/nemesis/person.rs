//! A client with XEP-0198 that comes back at any node: it resumes its stream, or learns what of it was handled and
//! writes the rest once more. It keeps a log of all that.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use althing_proto::ns;
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};

use super::crowd::{Crowd, Stage};
use super::dice::Dice;
use super::log::{Entry, Log, Number, Word};
use crate::client::Client;
use crate::deadline::within_time;
use crate::login::{authenticated, bind};
use crate::script::parser::Security;
use crate::setup::DOMAIN;
use crate::stream::{Event, Stream};

/// The resource of all.
const RESOURCE: &str = "person";
/// Between two messages of one client.
const PACE: Duration = Duration::from_millis(40);
/// Between two questions what was handled.
const ASK: Duration = Duration::from_millis(300);
/// How long an answer may take before the connection is given up.
const SILENCE: Duration = Duration::from_secs(4);
/// Between two tries to come back.
const AGAIN: Duration = Duration::from_millis(150);
/// How long a login may take; a node that stands still takes connections.
const LOGIN: Duration = Duration::from_secs(3);
/// How long a resumption or a bind may take: it waits until a lost node is declared down.
const BIND: Duration = Duration::from_secs(15);
/// Most stanzas that are out and not acknowledged.
const WINDOW: usize = 60;
/// A connection is given up after this time, or up to twice as much, whatever there is.
const TIRED: Duration = Duration::from_secs(12);

/// Each so manieth client falls asleep at times.
const DOZER: usize = 3;

/// A client between two of its connections.
pub struct Person {
    own: usize,
    crowd: Arc<Crowd>,
    stage: watch::Receiver<Stage>,
    dice: Dice,
    log: Log,
    /// Messages written so far.
    count: u64,
    /// What is to be written once more.
    again: VecDeque<Number>,
    stream: Option<Managed>,
}

/// A stream with XEP-0198, which may have no connection.
struct Managed {
    id: String,
    /// Stanzas that came.
    came: u32,
    /// Stanzas that the server has handled.
    handled: u32,
    /// Those that were sent and not acknowledged: messages, and others as they were.
    out: VecDeque<Out>,
}

#[derive(Clone)]
enum Out {
    Message(Number),
    Other(String),
}

/// What the client knows of one connection.
struct Talk {
    client: Client,
    pace: Interval,
    ask: Interval,
    /// Since when an answer is owed.
    asked: Option<Instant>,
    /// The ping behind an acknowledgement.
    ping: Option<u64>,
    pings: u64,
}

impl Person {
    /// Client `own` of the crowd.
    #[must_use]
    pub fn new(own: usize, crowd: Arc<Crowd>, stage: watch::Receiver<Stage>) -> Person {
        let dice = Dice::new(crowd.seed, own as u64);
        Person {
            own,
            crowd,
            stage,
            dice,
            log: Log::default(),
            count: 0,
            again: VecDeque::new(),
            stream: None,
        }
    }

    /// One connection after another, until it is to leave; returns what it has done and seen.
    pub async fn live(mut self) -> Log {
        // Never asleep twice in a row: others wait until each has been there.
        let (mut collects, mut awake) = (false, false);
        while self.stage() != Stage::Leave {
            if self.stage() == Stage::Collect && !mem::replace(&mut collects, true) {
                // A new stream, so that what waits is asked for.
                self.stream = None;
            }
            match Box::pin(self.connect()).await {
                Ok(client) => {
                    if collects {
                        self.crowd.collecting(self.own);
                        self.talk(client, collects).await;
                    } else if awake && self.own.is_multiple_of(DOZER) && self.dice.below(2) == 0 {
                        awake = false;
                        self.doze(client).await;
                    } else {
                        awake = true;
                        self.talk(client, collects).await;
                    }
                }
                Err(_) => sleep(AGAIN).await,
            }
            self.note(Entry::Broke);
        }
        self.log
    }

    /// It is handed what waits and reads none of it; then it has forgotten its stream, and begins anew.
    async fn doze(&mut self, client: Client) {
        sleep(Duration::from_millis(1_000 + self.dice.below(4_000))).await;
        drop(client);
        self.give_up();
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn note(&mut self, entry: Entry) {
        self.log.0.push((self.crowd.now(), entry));
    }

    /// At a node that the dice choose, by the stream of before, where there is one and the server has it.
    async fn connect(&mut self) -> Result<Client> {
        let node = self.dice.index(self.crowd.endpoints.len());
        let crowd = Arc::clone(&self.crowd);
        let (endpoint, account) = (&crowd.endpoints[node], &crowd.accounts[self.own]);
        let login = authenticated(endpoint, account, Security::StartTls);
        let mut stream = within_time(LOGIN, "login", login).await?;
        self.note(Entry::Connected(node));
        let (jid, rest) = within_time(BIND, "bind", self.enter(&mut stream)).await?;
        let mut client = Client::new(stream, jid);
        // Silence is noticed here.
        client.set_patience(Duration::from_secs(600));
        client.send(&rest).await?;
        Ok(client)
    }

    /// Resumes or binds; returns the full JID, and what is to be sent first.
    async fn enter(&mut self, stream: &mut Stream) -> Result<(String, String)> {
        let jid = format!("{}/{RESOURCE}", self.crowd.accounts[self.own].bare(DOMAIN));
        if let Some(managed) = &self.stream {
            let resume = format!(
                "<resume xmlns='{}' previd='{}' h='{}'/>",
                ns::STREAM_MANAGEMENT,
                managed.id,
                managed.came
            );
            stream.send(&resume).await?;
            let answer = long_element(stream).await?;
            let handled = answer.attr("h").map(str::parse).transpose()?;
            if answer.is("resumed", ns::STREAM_MANAGEMENT) {
                self.handled(Word::Resumed, handled.context("resumed without a number")?);
                let out = self.stream.as_ref().map(|managed| managed.out.clone()).unwrap_or_default();
                return Ok((jid, out.iter().map(|out| self.text(out)).collect()));
            }
            ensure!(answer.is("failed", ns::STREAM_MANAGEMENT), "a resumption was answered with {answer:?}");
            match handled {
                Some(handled) => self.handled(Word::Failed, handled),
                None => self.note(Entry::Forgotten),
            }
            self.give_up();
        }
        // The address may be that of a session on a lost node.
        let jid = bind(stream, Some(RESOURCE)).await?;
        stream.send(&format!("<enable xmlns='{}' resume='true'/>", ns::STREAM_MANAGEMENT)).await?;
        let id = loop {
            let answer = stream.element().await?;
            if answer.is("enabled", ns::STREAM_MANAGEMENT) {
                break answer.attr("id").context("a stream that cannot be resumed")?.to_owned();
            }
            // What comes for the full JID before that is not counted.
            ensure!(answer.ns() == ns::CLIENT, "<enable/> was answered with {answer:?}");
            self.take(&answer);
        };
        self.note(Entry::Enabled);
        self.stream = Some(Managed { id, came: 0, handled: 0, out: VecDeque::new() });
        let mut first = vec![Out::Other("<presence/>".to_owned())];
        first.extend(mem::take(&mut self.again).into_iter().map(Out::Message));
        Ok((jid, first.into_iter().map(|out| self.send(out)).collect()))
    }

    /// The stream is over: what was not handled is written once more, on the next one.
    fn give_up(&mut self) {
        let Some(managed) = self.stream.take() else { return };
        let messages = managed.out.into_iter().filter_map(|out| match out {
            Out::Message(number) => Some(number),
            Out::Other(_) => None,
        });
        self.again.extend(messages);
    }

    /// Notes that a stanza is sent on the stream; returns its text.
    fn send(&mut self, out: Out) -> String {
        let text = self.text(&out);
        let message = match &out {
            Out::Message(number) => Some(*number),
            Out::Other(_) => None,
        };
        self.note(Entry::Sent(message));
        if let Some(managed) = &mut self.stream {
            managed.out.push_back(out);
        }
        text
    }

    fn text(&self, out: &Out) -> String {
        match out {
            Out::Other(text) => text.clone(),
            Out::Message(number) => {
                let to = self.crowd.accounts[number.to].bare(DOMAIN);
                format!(
                    "<message to='{to}' type='chat' id='{number}'><body>{number}</body>\
                     <origin-id xmlns='{}' id='{number}'/></message>",
                    ns::STANZA_ID
                )
            }
        }
    }

    /// The server has handled so many stanzas of the stream.
    fn handled(&mut self, word: Word, handled: u32) {
        self.note(Entry::Handled(word, handled));
        let Some(managed) = &mut self.stream else { return };
        let more = handled.saturating_sub(managed.handled) as usize;
        managed.handled = managed.handled.max(handled);
        let messages: Vec<Number> = managed
            .out
            .drain(..more.min(managed.out.len()))
            .filter_map(|out| match out {
                Out::Message(number) => Some(number),
                Out::Other(_) => None,
            })
            .collect();
        self.crowd.acknowledged(self.own, messages);
    }

    /// Until the connection is over, or is to be.
    async fn talk(&mut self, client: Client, collects: bool) {
        let mut talk = Talk {
            client,
            pace: interval(PACE),
            ask: interval(ASK),
            asked: None,
            ping: None,
            pings: self.count,
        };
        // A client that was held up writes no faster afterwards.
        talk.pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let range = u64::try_from(TIRED.as_millis()).unwrap_or(u64::MAX);
        let tired = Instant::now() + TIRED + Duration::from_millis(self.dice.below(range));
        let mut stages = self.stage.clone();
        let is_over = |stage| stage == Stage::Leave || stage == Stage::Collect && !collects;
        if is_over(*stages.borrow_and_update()) {
            return;
        }
        loop {
            let ended = tokio::select! {
                () = sleep_until(tired), if !collects => true,
                changed = stages.changed() => changed.is_err() || is_over(*stages.borrow_and_update()),
                event = talk.client.event() => match event {
                    Ok(Event::Element(element)) => self.element(&mut talk, &element).await.is_err(),
                    _ => true,
                },
                _ = talk.pace.tick(), if self.may_write() => {
                    let number = self.next_message();
                    let text = self.send(Out::Message(number));
                    talk.client.send(&text).await.is_err()
                }
                _ = talk.ask.tick() => self.ask(&mut talk).await.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    fn may_write(&self) -> bool {
        let out = self.stream.as_ref().map_or(0, |managed| managed.out.len());
        self.stage() == Stage::Talk && out < WINDOW
    }

    /// To anybody but oneself.
    fn next_message(&mut self) -> Number {
        let others = self.crowd.accounts.len() - 1;
        let to = (self.own + 1 + self.dice.index(others)) % self.crowd.accounts.len();
        self.count += 1;
        Number { from: self.own, to, count: self.count }
    }

    /// Asks what was handled, tells what has come, and gives up a server that does not answer.
    async fn ask(&mut self, talk: &mut Talk) -> Result<()> {
        if talk.asked.is_some_and(|asked| asked.elapsed() > SILENCE) {
            bail!("no answer");
        }
        let Some(managed) = &self.stream else { bail!("no stream") };
        let owes = managed.out.iter().any(|out| matches!(out, Out::Message(_)));
        if !owes && self.stage() != Stage::Talk {
            self.crowd.settled(self.own);
        }
        let mut text = String::new();
        if talk.ping.is_none() {
            talk.pings += 1;
            talk.ping = Some(talk.pings);
            text = format!("<a xmlns='{}' h='{}'/>", ns::STREAM_MANAGEMENT, managed.came);
            self.note(Entry::Acknowledged);
            let id = format!("ping{}", talk.pings);
            text +=
                &self.send(Out::Other(format!("<iq type='get' id='{id}'><ping xmlns='{}'/></iq>", ns::PING)));
        }
        text += &format!("<r xmlns='{}'/>", ns::STREAM_MANAGEMENT);
        talk.asked.get_or_insert_with(Instant::now);
        talk.client.send(&text).await
    }

    async fn element(&mut self, talk: &mut Talk, element: &Element) -> Result<()> {
        if element.is("r", ns::STREAM_MANAGEMENT) {
            let came = self.stream.as_ref().map_or(0, |managed| managed.came);
            return talk.client.send(&format!("<a xmlns='{}' h='{came}'/>", ns::STREAM_MANAGEMENT)).await;
        }
        if element.is("a", ns::STREAM_MANAGEMENT) {
            talk.asked = None;
            self.handled(Word::Answer, element.attr("h").context("an answer without a number")?.parse()?);
            return Ok(());
        }
        ensure!(element.ns() == ns::CLIENT, "the stream ends: {element:?}");
        if let Some(managed) = &mut self.stream {
            managed.came = managed.came.wrapping_add(1);
        }
        let ping = talk.ping.map(|ping| format!("ping{ping}"));
        if element.name() == "iq" && element.attr("id") == ping.as_deref() {
            talk.ping = None;
            self.note(Entry::Confirmed);
        }
        self.take(element);
        Ok(())
    }

    /// Notes a message.
    fn take(&mut self, element: &Element) {
        let id = element.attr("id").unwrap_or_default();
        let Some(number) = (element.name() == "message").then(|| id.parse().ok()).flatten() else { return };
        if element.attr("type") == Some("error") {
            self.crowd.refused(number);
            self.note(Entry::Refused(number));
            return;
        }
        let own = self.crowd.accounts[self.own].bare(DOMAIN);
        let is_own =
            |child: &&Element| child.is("stanza-id", ns::STANZA_ID) && child.attr("by") == Some(own.as_str());
        let id = element.children().find(is_own).and_then(|child| child.attr("id")).map(str::to_owned);
        self.crowd.arrived(number);
        self.note(Entry::Received(number, id));
    }
}

/// The next element, however long it takes; the caller has a deadline.
async fn long_element(stream: &mut Stream) -> Result<Element> {
    match stream.next().await? {
        Event::Element(element) => Ok(element),
        other => bail!("expected an element, got {other:?}"),
    }
}
