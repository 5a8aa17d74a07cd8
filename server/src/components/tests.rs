//! Components inside the process, on one node. The two here are for tests only: the first of the server's own to come
//! takes their place as the example; until then the one over the network is the only other user of the trait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use althing_proto::disco::{Identity, Info, Item};
use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza::{Kind, MessageType, Stanza, StanzaCondition};
use althing_proto::stream::error::StreamCondition;

use super::balance::tests::MADE;
use super::host::start;
use super::{Component, Ending, Letter, Statistic, listed, statistics};
use crate::config::Config;
use crate::delivery::{self, drive};
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::router::component;
use crate::session::effect::Effect;

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each message with itself, one for each permit.
struct Echo {
    permits: Arc<Semaphore>,
    echoed: u64,
}

#[async_trait]
impl Component for Echo {
    fn description(&self) -> Option<Info> {
        Some(Info {
            identities: vec![Identity::new("component", "generic").named("Echo")],
            features: ["urn:test:echo".to_owned()].into(),
            forms: Vec::new(),
        })
    }

    fn items(&self) -> Vec<Item> {
        vec![Item::entity(BareJid::new("hall@echo.localhost").unwrap(), Some("The hall"))]
    }

    async fn receive(
        &mut self,
        letters: &mut VecDeque<Letter>,
        _: &Arc<NodeContext>,
    ) -> Result<Effects, Ending> {
        let mut effects = Effects::new();
        self.permits.acquire().await.unwrap().forget();
        if let Some(Letter { stanza, .. }) = letters.pop_front()
            && let (Some(from), Some(to)) = (stanza.from(), stanza.to())
            && matches!(stanza.kind(), Kind::Message(_))
        {
            self.echoed += 1;
            effects.push(Effect::Route(stanza.with_from(to.clone()).with_to(from.clone())));
        }
        Ok(effects)
    }

    fn configure(&mut self, config: &Config) -> Result<(), Ending> {
        match config.node.name.as_str() {
            "without-echo" => Err(Ending::Error(StreamCondition::HostGone.into())),
            _ => Ok(()),
        }
    }

    fn statistics(&self) -> Vec<Statistic> {
        vec![Statistic { name: "echoed", value: self.echoed }]
    }
}

/// Shows what it gets.
struct Ear(mpsc::UnboundedSender<Letter>);

#[async_trait]
impl Component for Ear {
    async fn receive(
        &mut self,
        letters: &mut VecDeque<Letter>,
        _: &Arc<NodeContext>,
    ) -> Result<Effects, Ending> {
        letters.drain(..).for_each(|letter| self.0.send(letter).unwrap());
        Ok(Effects::new())
    }
}

async fn ear(node: &Arc<NodeContext>, domain: &str) -> mpsc::UnboundedReceiver<Letter> {
    let (sender, heard) = mpsc::unbounded_channel();
    start(node, domain, Ear(sender)).await.unwrap();
    heard
}

/// Foreign domains are met for each stanza to somebody elsewhere, and most are nobody's here.
#[actix_rt::test]
async fn a_domain_without_a_component_costs_no_addresses() {
    let node = Arc::new(NodeContext::for_tests());
    let _heard = ear(&node, "ear.localhost").await;
    let made = || MADE.with(std::cell::Cell::get);
    let before = made();
    for (number, domain) in ["nowhere.example", "x.ear.localhost", "nowhere.example"].into_iter().enumerate()
    {
        assert!(component::find(&node, &message("a@localhost/r", &format!("x@{domain}"), number)).is_none());
    }
    assert_eq!(made(), before);
    assert!(component::find(&node, &message("a@localhost/r", "x@ear.localhost", 9)).is_some());
}

async fn echo(node: &Arc<NodeContext>, domain: &str, permits: usize) -> Arc<Semaphore> {
    let permits = Arc::new(Semaphore::new(permits));
    start(node, domain, Echo { permits: Arc::clone(&permits), echoed: 0 }).await.unwrap();
    permits
}

fn stanza(xml: &str) -> Stanza {
    Stanza::parse(xml.parse().unwrap()).unwrap()
}

fn message(from: &str, to: &str, id: usize) -> Stanza {
    stanza(&format!("<message xmlns='jabber:client' from='{from}' to='{to}' id='{id}'><body/></message>"))
}

/// Routes a stanza, and what follows from it.
async fn send(node: &Arc<NodeContext>, stanza: Stanza) {
    drive(node, delivery::from_component(node, stanza).into()).await;
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Letter>) -> Stanza {
    timeout(PATIENCE, heard.recv()).await.expect("nothing came").unwrap().stanza
}

/// T3, T5, T14: a stanza that arrives starts the component, and its results go through the router.
#[actix_rt::test]
async fn t3_a_component_is_driven_by_what_arrives_and_answers_through_the_router() {
    let node = Arc::new(NodeContext::for_tests());
    echo(&node, "echo.localhost", 100).await;
    let mut heard = ear(&node, "ear.localhost").await;
    send(&node, message("a@ear.localhost/x", "hall@echo.localhost/y", 1)).await;
    let answer = next(&mut heard).await;
    assert_eq!(answer.from().map(Jid::as_str), Some("hall@echo.localhost/y"));
    assert_eq!(answer.to().map(Jid::as_str), Some("a@ear.localhost/x"));
}

/// T2: a slow component delays nobody but those who wait for it.
#[actix_rt::test]
async fn t2_a_component_that_stands_still_does_not_delay_another() {
    let node = Arc::new(NodeContext::for_tests());
    let permits = echo(&node, "slow.localhost", 0).await;
    echo(&node, "fast.localhost", 100).await;
    let mut heard = ear(&node, "ear.localhost").await;
    for id in 0..10 {
        send(&node, message("a@ear.localhost/x", "slow.localhost", id)).await;
        send(&node, message("a@ear.localhost/x", "fast.localhost", 100 + id)).await;
        assert_eq!(next(&mut heard).await.id(), Some((100 + id).to_string().as_str()));
    }
    permits.add_permits(10);
    for id in 0..10 {
        assert_eq!(next(&mut heard).await.id(), Some(id.to_string().as_str()), "in order");
    }
}

/// T6, R12: a component's domain, then nobody's; an error goes to the sender, and errors are not answered.
#[actix_rt::test]
async fn t6_what_has_no_component_goes_back_and_errors_do_not() {
    let node = Arc::new(NodeContext::for_tests());
    let mut heard = ear(&node, "ear.localhost").await;
    send(&node, message("a@ear.localhost/x", "nobody.localhost", 1)).await;
    let error = next(&mut heard).await;
    assert_eq!(error.error_condition(), Some(StanzaCondition::RemoteServerNotFound));
    // An error that cannot be delivered has no echo: the next thing heard is the ping's error.
    send(
        &node,
        stanza("<message xmlns='jabber:client' type='error' from='a@ear.localhost' to='nobody.localhost'/>"),
    )
    .await;
    let ping = "<iq xmlns='jabber:client' type='get' id='p' from='a@ear.localhost' to='nobody.localhost'>\
                <ping xmlns='urn:xmpp:ping'/></iq>";
    send(&node, stanza(ping)).await;
    assert_eq!(next(&mut heard).await.id(), Some("p"));
}

/// R12, P4: the component's route comes before the server's own handlers, which would answer a ping; and a user, a
/// component and a remote domain are three ways.
#[actix_rt::test]
async fn r12_p4_the_component_is_asked_and_not_the_servers_own_handlers() {
    let node = Arc::new(NodeContext::for_tests());
    let mut heard = ear(&node, "ear.localhost").await;
    let ping = |to: &str| {
        stanza(&format!(
            "<iq xmlns='jabber:client' type='get' id='p' from='me@ear.localhost' to='{to}'>\
             <ping xmlns='urn:xmpp:ping'/></iq>"
        ))
    };
    send(&node, ping("ear.localhost")).await;
    let asked = next(&mut heard).await;
    assert!(asked.payload().is_some_and(|ping| ping.is("ping", "urn:xmpp:ping")), "the component is asked");
    let mut ways = Vec::new();
    for to in ["localhost", "user@localhost", "example.org"] {
        send(&node, ping(to)).await;
        ways.push(next(&mut heard).await.error_condition());
    }
    let user = Some(StanzaCondition::ServiceUnavailable);
    assert_eq!(ways, [None, user, Some(StanzaCondition::RemoteServerNotFound)]);
}

/// T8: what is on the envelope is not what is on the stanza.
#[actix_rt::test]
async fn t8_a_letter_bears_its_lane_beside_the_stanzas_own_addresses() {
    let node = Arc::new(NodeContext::for_tests());
    let mut heard = ear(&node, "ear.localhost").await;
    send(&node, message("a@ear.localhost/x", "room@ear.localhost/nick", 1)).await;
    let letter = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
    assert_eq!(letter.lane, super::balance::lane_of(letter.stanza.from()));
    assert_eq!(letter.stanza.to().map(Jid::as_str), Some("room@ear.localhost/nick"));
}

/// T13: a full inbox refuses messages with an error and drops presence, and both are counted.
#[actix_rt::test]
async fn t13_a_full_inbox_answers_messages_and_drops_presence() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.components.inbox_stanzas = 16);
    let permits = echo(&node, "slow.localhost", 0).await;
    let mut heard = ear(&node, "ear.localhost").await;
    for id in 0..16 {
        send(&node, message("a@ear.localhost/x", "slow.localhost", id)).await;
    }
    send(&node, stanza("<presence xmlns='jabber:client' from='a@ear.localhost/x' to='slow.localhost'/>"))
        .await;
    send(&node, message("a@ear.localhost/x", "slow.localhost", 16)).await;
    let refused = next(&mut heard).await;
    assert_eq!(refused.kind(), Kind::Message(MessageType::Error));
    assert_eq!(refused.error_condition(), Some(StanzaCondition::ResourceConstraint));
    permits.add_permits(100);
    for id in 0..16 {
        assert_eq!(next(&mut heard).await.id(), Some(id.to_string().as_str()));
    }
    let numbers = statistics(&node).await;
    let (_, slow) = numbers.iter().find(|(domain, _)| domain == "slow.localhost").unwrap();
    let number = |name: &str| slow.iter().find(|number| number.name == name).map(|number| number.value);
    assert_eq!((number("stanzas_taken"), number("stanzas_refused")), (Some(16), Some(2)));
    // T17: what the component counts itself is among them.
    assert_eq!(
        (number("echoed"), number("connections"), number("stanzas_waiting")),
        (Some(16), Some(1), Some(0))
    );
    // And among the figures of the node, by its domain.
    let figures = crate::statistics::snapshot(&node).await;
    let figure = |name: &str| figures.iter().find(|figure| figure.name == name).cloned();
    let echoed = figure("component/slow.localhost/echoed").unwrap();
    assert_eq!((echoed.value, figure("component/slow.localhost/connections").unwrap().value), (16, 1));
    assert_eq!(figure("component/slow.localhost/stanzas_refused").unwrap().units, "stanzas");
}

/// T16: a component is listed by the server whose domain it is below, and answers service discovery.
#[actix_rt::test]
async fn t16_a_component_is_listed_and_tells_what_it_is() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.xmpp.domains = vec!["localhost".to_owned(), "example.org".to_owned()]);
    assert_eq!(listed(&node, "localhost"), []);
    echo(&node, "echo.localhost", 100).await;
    echo(&node, "echo.elsewhere", 100).await;
    let mut heard = ear(&node, "ear.localhost").await;
    let echo = |domain: &str| (domain.to_owned(), Some("Echo".to_owned()));
    let ear = ("ear.localhost".to_owned(), None);
    assert_eq!(listed(&node, "localhost"), [ear, echo("echo.elsewhere"), echo("echo.localhost")]);
    assert_eq!(listed(&node, "example.org"), [echo("echo.elsewhere")]);
    for (query, expected) in [
        ("info", "name='Echo'"),
        ("info", "<feature var='urn:test:echo'/>"),
        ("items", "<item jid='hall@echo.localhost' name='The hall'/>"),
    ] {
        let ask = format!(
            "<iq xmlns='jabber:client' type='get' id='d' from='a@ear.localhost' to='echo.localhost'>\
             <query xmlns='http://jabber.org/protocol/disco#{query}'/></iq>"
        );
        send(&node, stanza(&ask)).await;
        let answer = String::from_utf8(next(&mut heard).await.to_bytes().to_vec()).unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
}

/// T15: a configuration that changes is taken while the component runs; one that is configured no more ends.
#[actix_rt::test]
async fn t15_a_component_takes_a_new_configuration_while_it_runs() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.components.inbox_stanzas = 16);
    let permits = echo(&node, "slow.localhost", 0).await;
    let handle = node.components.all().pop().unwrap();
    let mut heard = ear(&node, "ear.localhost").await;
    let mut config = Config::clone(&node.config());
    config.components.inbox_stanzas = 1_000;
    node.components.configure(&Arc::new(config.clone()));
    // An answer says that what came before it is done.
    handle.statistics().await;
    for id in 0..100 {
        send(&node, message("a@ear.localhost/x", "slow.localhost", id)).await;
    }
    permits.add_permits(200);
    for id in 0..100 {
        assert_eq!(next(&mut heard).await.id(), Some(id.to_string().as_str()), "none was refused");
    }
    config.node.name = "without-echo".to_owned();
    node.components.configure(&Arc::new(config));
    timeout(PATIENCE, handle.detached()).await.expect("it still runs");
    send(&node, message("a@ear.localhost/x", "slow.localhost", 1)).await;
    assert_eq!(next(&mut heard).await.error_condition(), Some(StanzaCondition::RemoteServerNotFound));
}

/// T7: of two connections one has a sender's stanzas; when it ends, what it had not handled comes first to the other.
#[actix_rt::test]
async fn t7_what_a_connection_leaves_goes_to_the_other_in_order() {
    const COUNT: usize = 200;
    let node = Arc::new(NodeContext::for_tests());
    // Both stand still, then each is asked in turn: the one that has the lane is known by what waits.
    let permits = [echo(&node, "twin.localhost", 0).await, echo(&node, "twin.localhost", 0).await];
    let mut heard = ear(&node, "ear.localhost").await;
    for id in 0..COUNT {
        send(&node, message("a@ear.localhost/x", "twin.localhost", id)).await;
    }
    let twins: Vec<_> =
        node.components.all().into_iter().filter(|handle| handle.domain() == "twin.localhost").collect();
    let [owner] = &twins.iter().filter(|twin| twin.inbox.waiting().0 == COUNT).collect::<Vec<_>>()[..] else {
        panic!("one connection has the whole lane");
    };
    owner.end(Ending::Error(StreamCondition::SystemShutdown.into()));
    for id in COUNT..2 * COUNT {
        send(&node, message("a@ear.localhost/x", "twin.localhost", id)).await;
        tokio::task::yield_now().await;
    }
    owner.detached().await;
    permits.iter().for_each(|permits| permits.add_permits(3 * COUNT));
    for id in 0..2 * COUNT {
        assert_eq!(next(&mut heard).await.id(), Some(id.to_string().as_str()));
    }
}
