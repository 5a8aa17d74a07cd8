//! What a module does aside: what goes on meanwhile, what keeps its order, what becomes of it in the end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use althing_cluster::lease::{Lease, LeaseTimes, boot_time};
use althing_proto::jid::{BareJid, ResourcePart};
use althing_proto::stanza::Stanza;
use althing_proto::stream::Framing;

use crate::delivery;
use crate::metrics::Waiting;
use crate::modules::Module;
use crate::node::NodeContext;
use crate::pipeline::tests::{MadeUp, NOTHING, said, stanza, with_modules};
use crate::pipeline::{At, Interest, Outcome, Packet};
use crate::session::SessionHandle;
use crate::session::copies::Share;
use crate::session::effect::Effect;
use crate::session::messages::{EndReason, Progress, Work};
use crate::session::outbox::Outbox;
use crate::session::pressure::Pressure;
use crate::stream::login;

use super::Capacity;

const WAITS: Interest = Interest::iq_get("urn:waits", At::SERVER);
const LONG: Duration = Duration::from_secs(600);

/// Answers aside, once `gate` lets it.
fn answer_behind(gate: &'static Semaphore, packet: &Packet) -> Outcome {
    let answer = packet.stanza.result(None);
    Outcome::aside(async move {
        gate.acquire().await.unwrap().forget();
        vec![Effect::Route(answer)]
    })
}

fn at_once(packet: &Packet) -> Outcome {
    Outcome::reply(packet.stanza.result(None))
}

static QUICK: MadeUp =
    MadeUp { interests: const { &[Interest::iq_get("urn:quick", At::SERVER)] }, process: at_once, ..NOTHING };

/// A client of a node by itself.
struct Client {
    session: Arc<SessionHandle>,
    outbox: Rc<Outbox>,
    got: String,
}

fn node(modules: &[&'static dyn Module]) -> Arc<NodeContext> {
    let mut node = NodeContext::for_tests();
    with_modules(&mut node, modules);
    Arc::new(node)
}

impl Client {
    async fn new(node: &Arc<NodeContext>, resource: &str) -> Self {
        let outbox = Rc::new(Outbox::new(
            1_000_000,
            Arc::new(Pressure::new(1_000_000)),
            Framing::Tcp,
            Waiting::for_tests(),
        ));
        let resource = ResourcePart::new(resource).unwrap().into_owned();
        let user = BareJid::new("a@localhost").unwrap();
        node.has_account(&user).await;
        let session = login::bind(node, &user, &resource, &outbox, None).await.unwrap();
        Client { session, outbox, got: String::new() }
    }

    /// Sends stanzas as a connection does; returns when the connection would read on.
    fn send<'a>(&self, stanzas: impl IntoIterator<Item = &'a str>) -> impl Future<Output = ()> + 'static {
        let elements = stanzas.into_iter().map(|xml| stanza(xml).element().clone()).collect();
        let (session, mut work) = (Arc::clone(&self.session), Work { elements, ..Work::default() });
        async move {
            while let Ok(Progress::Waiting(future, mut rest)) = session.advance(work).await {
                for effect in future.await.into_iter().rev() {
                    rest.effects.push_front(effect);
                }
                work = rest;
            }
        }
    }

    /// Reads until `last` has come; what came before it stays in `got`.
    async fn until(&mut self, last: &str) {
        while !self.got.contains(last) {
            let mut out = Vec::new();
            let took = timeout(Duration::from_secs(20), self.outbox.take(&mut out)).await;
            assert!(took.is_ok(), "no {last} in {}", self.got);
            self.got.push_str(&String::from_utf8(out).unwrap());
        }
    }

    /// The ids of the stanzas that have come, in order.
    fn ids(&self) -> Vec<&str> {
        self.got.split("id='").skip(1).filter_map(|rest| rest.split('\'').next()).collect()
    }
}

fn get(id: u32, namespace: &str) -> String {
    format!("<iq type='get' id='i{id}' to='localhost'><q xmlns='{namespace}'/></iq>")
}

fn gets(ids: impl IntoIterator<Item = u32>, namespace: &str) -> Vec<String> {
    ids.into_iter().map(|id| get(id, namespace)).collect()
}

/// S3, T2: a module that waits delays neither the client's later stanzas nor another module's queue.
#[actix_rt::test]
async fn s3_t2_a_slow_module_delays_nothing_else() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static OTHER_GATE: Semaphore = Semaphore::const_new(0);
    static SLOW: MadeUp = MadeUp {
        interests: &[WAITS],
        capacity: Capacity { jobs: 10, workers: 1 },
        process: |packet| answer_behind(&GATE, packet),
        ..NOTHING
    };
    static OTHER: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:other", At::SERVER)] },
        process: |packet| answer_behind(&OTHER_GATE, packet),
        ..SLOW
    };
    let node = node(&[&SLOW, &OTHER, &QUICK]);
    let mut client = Client::new(&node, "r").await;
    let all = [get(1, "urn:waits"), get(2, "urn:other"), get(3, "urn:quick")];
    client.send(all.iter().map(String::as_str)).await;
    client.until("i3").await;
    OTHER_GATE.add_permits(1);
    client.until("i2").await;
    GATE.add_permits(1);
    client.until("i1").await;
    assert_eq!(client.ids(), ["i3", "i2", "i1"]);
}

/// S5: what one sender asks of one receiver is done in order, though more could run at once.
#[actix_rt::test]
async fn s5_one_pair_is_served_in_order() {
    static SLOW: MadeUp = MadeUp {
        interests: &[WAITS],
        process: |packet| {
            let (answer, id) = (packet.stanza.result(None), packet.stanza.id().unwrap().to_owned());
            Outcome::aside(async move {
                // The first ones take longest.
                for _ in 0..40_u32.saturating_sub(id[1..].parse().unwrap()) {
                    tokio::task::yield_now().await;
                }
                vec![Effect::Route(answer)]
            })
        },
        ..NOTHING
    };
    let node = node(&[&SLOW]);
    let mut client = Client::new(&node, "r").await;
    let all = gets(10..40, "urn:waits");
    client.send(all.iter().map(String::as_str)).await;
    client.until("i39").await;
    assert_eq!(client.ids(), (10..40).map(|id| format!("i{id}")).collect::<Vec<_>>());
}

/// S5, T13: a full queue refuses at once: a request is answered, presence is passed over, both are counted.
#[actix_rt::test]
async fn s5_t13_a_full_queue_refuses_and_counts() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static SLOW: MadeUp = MadeUp {
        interests: const { &[WAITS, Interest::presence(At::OTHER_ACCOUNT)] },
        capacity: Capacity { jobs: 2, workers: 1 },
        process: |packet| answer_behind(&GATE, packet),
        ..NOTHING
    };
    let node = node(&[&SLOW]);
    let mut client = Client::new(&node, "r").await;
    let all = gets(1..=3, "urn:waits");
    client.send(all.iter().map(String::as_str)).await;
    client.until("i3").await;
    assert_eq!(client.ids(), ["i3"]);
    assert!(
        client.got.contains("<resource-constraint ") && client.got.contains("type='wait'"),
        "{}",
        client.got
    );
    client.send(["<presence type='probe' to='b@localhost'/>"]).await;
    let numbers = node.modules.members()[0].counts.numbers();
    assert_eq!((numbers.queue, numbers.dropped), (2, 2));
    GATE.add_permits(2);
    client.until("i2").await;
    assert_eq!(client.ids(), ["i3", "i1", "i2"]);
    let numbers = node.modules.members()[0].counts.numbers();
    assert_eq!((numbers.handled, numbers.waited), (4, 2));
}

/// T13: a client with too many asides under way is not read further, and goes on when one is done.
#[actix_rt::test]
async fn t13_a_client_with_many_asides_waits() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static SLOW: MadeUp =
        MadeUp { interests: &[WAITS], process: |packet| answer_behind(&GATE, packet), ..NOTHING };
    let node = node(&[&SLOW, &QUICK]);
    let mut client = Client::new(&node, "r").await;
    let mut all = gets(1..=65, "urn:waits");
    all.push(get(66, "urn:quick"));
    let reading = actix_rt::spawn(client.send(all.iter().map(String::as_str)));
    let queue = &node.modules.members()[0].queue;
    while queue.len() < 64 {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.len(), 64, "a client can fill the queue");
    assert!(!reading.is_finished(), "the client is read on");
    GATE.add_permits(1);
    client.until("i66").await;
    reading.await.unwrap();
    GATE.add_permits(64);
    client.until("i65").await;
    assert_eq!(client.ids().len(), 66);
}

/// A panic is answered, and what waits behind it runs.
#[actix_rt::test]
async fn a_panic_is_answered_and_holds_nobody_up() {
    static CLUMSY: MadeUp = MadeUp {
        interests: &[WAITS],
        process: |packet| {
            let (answer, id) = (packet.stanza.result(None), packet.stanza.id().unwrap().to_owned());
            Outcome::aside(async move {
                assert_ne!(id, "i1", "clumsy on purpose");
                vec![Effect::Route(answer)]
            })
        },
        ..NOTHING
    };
    let node = node(&[&CLUMSY]);
    let mut client = Client::new(&node, "r").await;
    let all = gets(1..=2, "urn:waits");
    client.send(all.iter().map(String::as_str)).await;
    client.until("i2").await;
    assert_eq!(client.ids(), ["i1", "i2"]);
    let error = client.got.split("id='i2'").next().unwrap();
    assert!(error.contains("<internal-server-error "), "{error}");
}

/// Where the node has lost its lease meanwhile, nothing follows, even if it serves again.
#[actix_rt::test]
async fn what_began_before_a_lease_was_lost_ends_with_it() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static SLOW: MadeUp =
        MadeUp { interests: &[WAITS], process: |packet| answer_behind(&GATE, packet), ..NOTHING };
    let mut node = NodeContext::for_tests();
    with_modules(&mut node, &[&SLOW]);
    node.lease = Lease::new(LeaseTimes { suspend: LONG, close: LONG * 2, down: LONG * 3 });
    node.lease.begin_anew();
    node.lease.grant(boot_time(), LONG);
    let node = Arc::new(node);
    let client = Client::new(&node, "r").await;
    client.send([get(1, "urn:waits").as_str()]).await;
    let alone = "<iq type='get' id='i2' from='a@localhost/r' to='localhost'><q xmlns='urn:waits'/></iq>";
    delivery::drive(&node, vec![Effect::Route(stanza(alone))]).await;
    node.lease.lose();
    node.lease.begin_anew();
    node.lease.grant(boot_time(), LONG);
    let mut after = Client::new(&node, "r").await;
    GATE.add_permits(2);
    while !node.modules.members()[0].queue.is_empty() {
        tokio::task::yield_now().await;
    }
    delivery::drive(&node, vec![Effect::Route(stanza(&message("i3", "a@localhost/x")))]).await;
    after.until("i3").await;
    assert_eq!(after.ids(), ["i3"]);
}

fn message(id: &str, from: &str) -> String {
    format!("<message id='{id}' type='chat' from='{from}' to='a@localhost/r'/>")
}

/// A session that ends meanwhile: what matters to others happens, what was for its client does not.
#[actix_rt::test]
async fn effects_for_others_outlive_the_session() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static SLOW: MadeUp = MadeUp {
        interests: &[WAITS],
        process: |packet| {
            let answer = packet.stanza.result(None);
            Outcome::aside(async move {
                GATE.acquire().await.unwrap().forget();
                let other = stanza("<message id='other' type='chat' from='localhost' to='a@localhost/s'/>");
                vec![Effect::Route(answer), Effect::Route(other)]
            })
        },
        ..NOTHING
    };
    let node = node(&[&SLOW]);
    let (first, mut second) = (Client::new(&node, "r").await, Client::new(&node, "s").await);
    first.send([get(1, "urn:waits").as_str()]).await;
    first.session.end(EndReason::ClientGone).await;
    GATE.add_permits(1);
    second.until("other").await;
}

/// T14: what a queue yields goes on to the next place: a result of a module may itself be handled aside, in a session and
/// without one.
#[actix_rt::test]
async fn t14_a_result_is_handled_in_its_turn() {
    static FIRST: MadeUp = MadeUp {
        interests: &[WAITS],
        process: |packet| {
            let next = Stanza::from_parts(
                packet.stanza.kind(),
                packet.stanza.from().cloned(),
                packet.stanza.to().cloned(),
                get_element("urn:next", packet.stanza.id().unwrap()),
            );
            Outcome::aside(async move { vec![Effect::Route(next)] })
        },
        ..NOTHING
    };
    static NEXT: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:next", At::SERVER)] },
        process: |packet| {
            let answer = packet.stanza.result(None);
            Outcome::aside(async move { vec![Effect::Route(answer)] })
        },
        ..NOTHING
    };
    let node = node(&[&FIRST, &NEXT]);
    let mut client = Client::new(&node, "r").await;
    client.send([get(1, "urn:waits").as_str()]).await;
    client.until("i1").await;
    let alone = "<iq type='get' id='i2' from='a@localhost/r' to='localhost'><q xmlns='urn:waits'/></iq>";
    delivery::drive(&node, vec![Effect::Route(stanza(alone))]).await;
    client.until("i2").await;
    assert_eq!(client.ids(), ["i1", "i2"]);
}

fn get_element(namespace: &str, id: &str) -> althing_proto::xml::Element {
    let xml = format!("<iq xmlns='jabber:client' type='get' id='{id}'><q xmlns='{namespace}'/></iq>");
    xml.parse().unwrap()
}

/// Looks at each message with a body before the client gets it.
fn look_behind(gate: &'static Semaphore, packet: &Packet) -> Outcome {
    if packet.stanza.element().children().next().is_none() {
        return Outcome::Pass;
    }
    let stanza = packet.stanza.clone();
    Outcome::aside(async move {
        gate.acquire().await.unwrap().forget();
        vec![Effect::Deliver(stanza)]
    })
}

const MESSAGES: Interest = Interest { wanted: crate::pipeline::interest::Wanted::Message, at: At::INBOUND };

fn with_body(id: &str, from: &str) -> String {
    message(id, from).replace("/>", "><body>x</body></message>")
}

/// P8: what a module looks at on its way in does not fall behind later stanzas of its sender; others pass.
#[actix_rt::test]
async fn p8_deliveries_of_one_sender_keep_their_order() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static LOOKS: MadeUp =
        MadeUp { interests: &[MESSAGES], process: |packet| look_behind(&GATE, packet), ..NOTHING };
    let node = node(&[&LOOKS]);
    let mut client = Client::new(&node, "r").await;
    let (one, two) = ("b@localhost/x", "c@localhost/x");
    for xml in [
        with_body("m1", one),
        message("m2", one),
        with_body("m3", one),
        message("m4", one),
        message("n1", two),
    ] {
        client.session.deliver(stanza(&xml), Share::Alone).unwrap();
    }
    client.until("n1").await;
    assert_eq!(client.ids(), ["n1"]);
    GATE.add_permits(1);
    client.until("m2").await;
    assert_eq!(client.ids(), ["n1", "m1", "m2"]);
    GATE.add_permits(1);
    client.until("m4").await;
    assert_eq!(client.ids(), ["n1", "m1", "m2", "m3", "m4"]);
}

/// A session that ends with stanzas held back hands them on like those in its mailbox.
#[actix_rt::test]
async fn what_is_held_back_is_routed_anew_when_the_session_ends() {
    static GATE: Semaphore = Semaphore::const_new(0);
    static LOOKS: MadeUp =
        MadeUp { interests: &[MESSAGES], process: |packet| look_behind(&GATE, packet), ..NOTHING };
    let node = node(&[&LOOKS]);
    let (client, mut other) = (Client::new(&node, "r").await, Client::new(&node, "s").await);
    node.routes.set_priority(&other.session.jid, other.session.index, Some(0)).await.unwrap();
    let from = "b@localhost/x";
    for xml in [with_body("m1", from), message("m2", from), message("m3", from)] {
        client.session.deliver(stanza(&xml), Share::Alone).unwrap();
    }
    client.session.end(EndReason::ClientGone).await;
    // To a resource that is gone, as chat: to the other one.
    other.until("m3").await;
    assert_eq!(other.ids(), ["m2", "m3"]);
}

/// Without any session effects go on as well.
#[actix_rt::test]
async fn what_belongs_to_no_session_is_driven() {
    static SLOW: MadeUp =
        MadeUp { interests: &[WAITS], process: |_| Outcome::aside(async { vec![said("done")] }), ..NOTHING };
    let node = node(&[&SLOW]);
    let mut client = Client::new(&node, "x").await;
    let alone = "<iq type='get' id='i2' from='b@localhost/r' to='localhost'><q xmlns='urn:waits'/></iq>";
    delivery::drive(&node, vec![Effect::Route(stanza(alone))]).await;
    client.until("done").await;
}
