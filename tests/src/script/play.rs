//! One client of a script: does its steps and keeps what has come for it.

use althing_proto::ns;
use anyhow::{Context, Result, anyhow, bail, ensure};
use minidom::Element;

use super::captures::{Captures, escape_xml};
use super::matcher::matches;
use super::parser::{Action, Security};
use crate::client::{Client, condition_of};
use crate::component::{Component, answer_to};
use crate::endpoint::Endpoint;
use crate::login::{self, Account, Binding, Verdict};
use crate::stream::{Event, Stream};
use crate::tls::Versions;

/// How far a client has come.
enum State {
    Away,
    /// A stream before its bind; features that the script has not looked at yet.
    Opened(Box<Stream>, Vec<Element>),
    Bound(Box<Client>),
    Attached(Box<Component>),
}

/// Who a player is.
enum Part {
    Client { account: Account, resource: String },
    Component { domain: String },
}

/// A client or component of a script.
pub(super) struct Player {
    name: String,
    endpoint: Endpoint,
    part: Part,
    state: State,
    /// What may come or not.
    tolerated: Vec<Element>,
    /// Its further stanzas do not matter.
    pub(super) ignoring: bool,
}

impl Player {
    pub(super) fn client(name: &str, endpoint: Endpoint, account: Account, resource: &str) -> Player {
        Player::new(name, endpoint, Part::Client { account, resource: resource.to_owned() })
    }

    pub(super) fn component(name: &str, endpoint: Endpoint, domain: &str) -> Player {
        Player::new(name, endpoint, Part::Component { domain: domain.to_owned() })
    }

    fn new(name: &str, endpoint: Endpoint, part: Part) -> Player {
        let name = name.to_owned();
        Player { name, endpoint, part, state: State::Away, tolerated: Vec::new(), ignoring: false }
    }

    /// The account of a client.
    pub(super) fn account(&self) -> Option<(&Endpoint, &Account)> {
        match &self.part {
            Part::Client { account, .. } => Some((&self.endpoint, account)),
            Part::Component { .. } => None,
        }
    }

    /// The domain of its server.
    pub(super) fn server(&self) -> &str {
        &self.endpoint.domain
    }

    /// Where stanzas reach it, once it is bound or attached, and the `from` that its own must bear.
    pub(super) fn address(&self) -> Option<(String, String)> {
        match &self.state {
            State::Bound(client) => Some((client.jid().to_owned(), String::new())),
            State::Attached(component) => {
                Some((component.domain().to_owned(), format!(" from='{}'", component.domain())))
            }
            State::Away | State::Opened(..) => None,
        }
    }

    pub(super) async fn play(&mut self, action: &Action, captures: &mut Captures) -> Result<()> {
        match action {
            Action::Connect => self.connect(captures).await?,
            Action::Open(security) => self.open(*security).await?,
            Action::Authenticate(lang) => self.authenticate(lang.as_deref()).await?,
            Action::Online(priority) => self.come_online(*priority, captures).await?,
            Action::Send(text) => self.send(&captures.fill(text, escape_xml)?).await?,
            Action::Receive { templates, any_order: false } => {
                for template in templates {
                    let got = self.next(captures).await.with_context(|| expectation(template))?;
                    check(template, &got, captures)?;
                }
            }
            Action::Receive { templates, any_order: true } => self.receive_any(templates, captures).await?,
            Action::Tolerate(templates) => self.tolerated.extend_from_slice(templates),
            Action::StreamError(condition) => self.stream_error(condition, captures).await?,
            Action::Refused(condition) => self.refused(condition, captures).await?,
            Action::Closed => self.closed().await?,
            Action::Disconnect => self.state = State::Away,
            Action::Close => self.close().await?,
            Action::Ignore => self.ignoring = true,
            Action::ReceiveNothing | Action::Befriend(_) | Action::Unheard { .. } => {
                bail!("a step of the whole script")
            }
        }
        Ok(())
    }

    async fn connect(&mut self, captures: &mut Captures) -> Result<()> {
        self.state = match &self.part {
            Part::Client { account, resource } => {
                let client = login::connect(&self.endpoint, account, resource).await?;
                captures.set(self.name.as_str(), client.jid());
                State::Bound(Box::new(client))
            }
            Part::Component { domain } => {
                State::Attached(Box::new(Component::attach(&self.endpoint, domain).await?))
            }
        };
        Ok(())
    }

    async fn refused(&mut self, condition: &str, captures: &Captures) -> Result<()> {
        let Part::Component { domain } = &self.part else { bail!("only a component is refused so") };
        let (mut component, id) = Component::open(&self.endpoint, domain).await?;
        component.send(&format!("<handshake>{}</handshake>", answer_to(&id))).await?;
        self.state = State::Attached(Box::new(component));
        self.stream_error(condition, captures).await
    }

    async fn open(&mut self, security: Security) -> Result<()> {
        let (stream, features) = Stream::open(&self.endpoint, security, Versions::Any).await?;
        self.state = State::Opened(Box::new(stream), vec![features]);
        Ok(())
    }

    async fn authenticate(&mut self, lang: Option<&str>) -> Result<()> {
        let (Part::Client { account, .. }, State::Opened(stream, _)) = (&self.part, &mut self.state) else {
            bail!("`authenticates` comes after `opens`")
        };
        // Every SCRAM server has SHA-1 (RFC 6120 §13.8).
        let mechanism = althing_proto::sasl::Mechanism::ScramSha1;
        let verdict = login::authenticate(stream, account, mechanism, Binding::Unsupported).await?;
        ensure!(verdict == Verdict::Accepted, "the login failed: {verdict:?}");
        let features = stream.header_in(lang).await?;
        if let State::Opened(_, waiting) = &mut self.state {
            *waiting = vec![features];
        }
        Ok(())
    }

    async fn come_online(&mut self, priority: i8, captures: &Captures) -> Result<()> {
        let text = match priority {
            0 => "<presence/>".to_owned(),
            other => format!("<presence><priority>{other}</priority></presence>"),
        };
        self.send(&text).await?;
        let own = captures.get(&self.name).unwrap_or_default().to_owned();
        let got = self.next(captures).await.context("its own presence")?;
        ensure!(
            got.name() == "presence" && got.attr("from") == Some(&own) && got.attr("type").is_none(),
            "expected its own presence, got {}",
            show(&got)
        );
        Ok(())
    }

    pub(super) async fn send(&mut self, text: &str) -> Result<()> {
        match &mut self.state {
            State::Opened(stream, _) => stream.send(text).await,
            State::Bound(client) => client.send(text).await,
            State::Attached(component) => component.send(text).await,
            State::Away => bail!("not connected"),
        }
    }

    async fn event(&mut self) -> Result<Event> {
        match &mut self.state {
            State::Opened(_, waiting) if !waiting.is_empty() => Ok(Event::Element(waiting.remove(0))),
            State::Opened(stream, _) => stream.event().await,
            State::Bound(client) => client.event().await,
            State::Attached(component) => component.event().await,
            State::Away => bail!("not connected"),
        }
    }

    /// The next stanza that is not merely tolerated.
    pub(super) async fn next(&mut self, captures: &Captures) -> Result<Element> {
        loop {
            let got = match self.event().await? {
                Event::Element(element) => element,
                other => bail!("got {other:?}"),
            };
            let known = |template: &Element| matches(template, &got, &mut captures.clone()).is_ok();
            match self.tolerated.iter().position(known) {
                Some(index) => drop(self.tolerated.remove(index)),
                None => return Ok(got),
            }
        }
    }

    async fn receive_any(&mut self, templates: &[Element], captures: &mut Captures) -> Result<()> {
        let mut open: Vec<&Element> = templates.iter().collect();
        while !open.is_empty() {
            let got = self.next(captures).await.with_context(|| {
                let wanted: Vec<String> = open.iter().map(|template| expectation(template)).collect();
                wanted.join("\n")
            })?;
            let reasons: Vec<Result<(), anyhow::Error>> =
                open.iter().map(|template| check(template, &got, captures)).collect();
            match reasons.iter().position(Result::is_ok) {
                Some(index) => drop(open.remove(index)),
                None => {
                    let all: Vec<String> =
                        reasons.iter().filter_map(|r| r.as_ref().err().map(|e| format!("{e:#}"))).collect();
                    bail!("matches none of those expected:\n{}", all.join("\n"));
                }
            }
        }
        Ok(())
    }

    async fn stream_error(&mut self, condition: &str, captures: &Captures) -> Result<()> {
        let got =
            self.next(captures).await.with_context(|| format!("expected the stream error {condition}"))?;
        ensure!(got.is("error", ns::STREAM), "expected the stream error {condition}, got {}", show(&got));
        let named = condition_of(&got);
        ensure!(named == condition, "expected the stream error {condition}, got {named}");
        self.closed().await
    }

    async fn closed(&mut self) -> Result<()> {
        match self.event().await? {
            Event::End | Event::Eof => {
                self.state = State::Away;
                Ok(())
            }
            other => bail!("expected the end of the stream, got {other:?}"),
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.send("</stream:stream>").await?;
        match self.event().await? {
            Event::End => {
                self.state = State::Away;
                Ok(())
            }
            other => bail!("expected </stream:stream> in answer, got {other:?}"),
        }
    }
}

fn check(template: &Element, got: &Element, captures: &mut Captures) -> Result<()> {
    matches(template, got, captures)
        .map_err(|why| anyhow!("{}\n{}\nreceived: {}", why.0, expectation(template), show(got)))
}

fn expectation(template: &Element) -> String {
    format!("expected: {}", show(template))
}

/// An element as XML, for people.
pub(super) fn show(element: &Element) -> String {
    let mut bytes = Vec::new();
    match element.write_to(&mut bytes) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("<{}/> (not to be written: {error})", element.name()),
    }
}
