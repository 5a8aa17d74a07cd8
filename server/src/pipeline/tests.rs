//! The stages with made-up modules: who sees what, in which order, and who may stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Stanza, StanzaCondition};

use super::{At, Effects, Interest, Outcome, Packet, Pass, Registry, Verdict, View, refusal, run, stage};
use crate::aside::Capacity;
use crate::delivery;
use crate::modules::{Module, Spec};
use crate::node::NodeContext;
use crate::session::effect::{Effect, Later};

/// A module made of functions; what is left out does nothing.
#[derive(Clone, Copy)]
pub(crate) struct MadeUp {
    pub(crate) interests: &'static [Interest],
    pub(crate) capacity: Capacity,
    pub(crate) preprocess: fn(&Packet) -> Verdict,
    pub(crate) process: fn(&Packet) -> Outcome,
    pub(crate) postprocess: fn(&Packet) -> Outcome,
    pub(crate) filter: fn(&Stanza) -> bool,
}

pub(crate) const NOTHING: MadeUp = MadeUp {
    interests: &[],
    capacity: Capacity { jobs: 1_000, workers: 8 },
    preprocess: |_| Verdict::Pass,
    process: |_| Outcome::Pass,
    postprocess: |_| Outcome::Pass,
    filter: |_| true,
};

impl Module for MadeUp {
    fn spec(&self) -> Spec {
        Spec { name: "made-up", document: "", version: "", title: "" }
    }

    fn interests(&self) -> &'static [Interest] {
        self.interests
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn preprocess(&self, packet: &Packet, _: &View<'_>) -> Verdict {
        (self.preprocess)(packet)
    }

    fn process(&self, packet: &Packet, _: &View<'_>) -> Outcome {
        (self.process)(packet)
    }

    fn postprocess(&self, packet: &Packet, _: &View<'_>) -> Outcome {
        (self.postprocess)(packet)
    }

    fn filter(&self, stanza: &Stanza, _: &View<'_>) -> bool {
        (self.filter)(stanza)
    }
}

/// A node with these modules.
fn node(modules: &[&'static dyn Module]) -> Arc<NodeContext> {
    let mut node = NodeContext::for_tests();
    with_modules(&mut node, modules);
    Arc::new(node)
}

/// The node has these modules instead of its own, each counted as `made-up`.
pub(crate) fn with_modules(node: &mut NodeContext, modules: &[&'static dyn Module]) {
    node.modules = Registry::counted(modules.iter().copied(), |name| node.metrics.module(name));
}

const GET: &str = "<iq type='get' id='1' from='a@localhost/x' to='localhost'><q xmlns='urn:q'/></iq>";
const MESSAGE: &str =
    "<message from='a@localhost/x' to='b@localhost/y'><unknown xmlns='urn:u'><deep/></unknown></message>";

pub(crate) fn stanza(xml: &str) -> Stanza {
    let xml = xml.replacen([' ', '>'], " xmlns='jabber:client' ", 1);
    Stanza::parse(xml.parse().unwrap()).unwrap()
}

fn packet(xml: &str, pass: Pass) -> Packet {
    Packet::new(stanza(xml), pass)
}

fn view(node: &Arc<NodeContext>) -> View<'_> {
    View { node, session: None, now: node.now() }
}

pub(crate) fn said(id: &str) -> Effect {
    Effect::Route(stanza(&format!("<message id='{id}' from='localhost' to='a@localhost/x'/>")))
}

/// What stages 1 to 3 yield; what they wait for is put where it stands.
async fn yields(node: &Arc<NodeContext>, packet: &Packet) -> Effects {
    let mut effects = Vec::new();
    for effect in run(&node.modules, packet, &view(node)) {
        match effect {
            Effect::Later(Later(future)) => effects.extend(future.await),
            Effect::Aside(job) => effects.extend(job.wait().await),
            effect => effects.push(effect),
        }
    }
    effects
}

/// The stanzas that would be routed, by id.
fn ids(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Route(stanza) | Effect::Deliver(stanza) => stanza.id().unwrap_or(""),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// S1: only stanzas of the declared element, namespace, type and place reach a processor.
#[actix_rt::test]
async fn s1_only_declared_interests_reach_a_module() {
    static PICKY: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER), Interest::presence(At::OTHER_ACCOUNT)] },
        process: |_| Outcome::Done(vec![said("mine")]),
        ..NOTHING
    };
    let node = node(&[&PICKY]);
    let other = || Pass::Account(BareJid::new("b@localhost").unwrap());
    let own = || Pass::Account(BareJid::new("a@localhost").unwrap());
    let presence = "<presence from='a@localhost/x' to='b@localhost'/>";
    let set = GET.replace("get", "set");
    let elsewhere = GET.replace("urn:q", "urn:other");
    for (xml, pass, reached) in [
        (GET, Pass::Server, true),
        (presence, other(), true),
        (GET, Pass::Outbound, false),
        (GET, other(), false),
        (presence, own(), false),
        (presence, Pass::Inbound, false),
        (set.as_str(), Pass::Server, false),
        (elsewhere.as_str(), Pass::Server, false),
        (MESSAGE, Pass::Server, false),
    ] {
        let packet = packet(xml, pass);
        let outcome = stage::process(&node.modules, &packet, &view(&node));
        assert_eq!(outcome.is_some(), reached, "{packet:?}");
    }
}

/// S2: what no module wants goes to its destination as it came.
#[actix_rt::test]
async fn s2_an_unknown_payload_goes_on_untouched() {
    static OTHERS: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |_| Outcome::Done(Vec::new()),
        ..NOTHING
    };
    let node = node(&[&OTHERS]);
    let sent = packet(MESSAGE, Pass::Outbound);
    let [Effect::Route(routed)] = &yields(&node, &sent).await[..] else { panic!("not routed") };
    assert_eq!(routed.to_bytes(), sent.stanza.to_bytes());
    let [Effect::Deliver(delivered)] = &yields(&node, &packet(MESSAGE, Pass::Inbound)).await[..] else {
        panic!("not delivered")
    };
    assert_eq!(delivered.to_bytes(), sent.stanza.to_bytes());
}

/// S3: all that are interested handle the packet, at the same time; what is there does not wait for what is not.
#[actix_rt::test]
async fn s3_results_of_all_interested_modules_appear() {
    static SLOW: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |_| {
            Outcome::later(async {
                tokio::task::yield_now().await;
                vec![said("slow")]
            })
        },
        ..NOTHING
    };
    static ASIDE: MadeUp = MadeUp { process: |_| Outcome::aside(async { vec![said("aside")] }), ..SLOW };
    static QUICK: MadeUp = MadeUp { process: |_| Outcome::Done(vec![said("quick")]), ..SLOW };
    let node = node(&[&SLOW, &ASIDE, &SLOW, &QUICK]);
    let get = packet(GET, Pass::Server);
    let effects = run(&node.modules, &get, &view(&node));
    assert!(
        matches!(&effects[..], [Effect::Aside(_), Effect::Route(_), Effect::Later(_)]),
        "something waits for others: {effects:?}"
    );
    assert_eq!(ids(&yields(&node, &get).await), ["aside", "quick", "slow", "slow"]);
}

/// S4, S8: the first blocking point. A blocked packet reaches no processor; its sender is answered.
#[actix_rt::test]
async fn s4_s8_a_preprocessor_blocks_before_anyone_processes() {
    static PROCESSED: AtomicUsize = AtomicUsize::new(0);
    static GUARD: MadeUp = MadeUp {
        preprocess: |packet| match packet.stanza.id() {
            Some("1") => Verdict::Block(refusal(packet, StanzaCondition::NotAcceptable)),
            _ => Verdict::Pass,
        },
        ..NOTHING
    };
    static HANDLER: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |_| {
            PROCESSED.fetch_add(1, Ordering::Relaxed);
            Outcome::Done(vec![said("handled")])
        },
        ..NOTHING
    };
    // The handler stands first: order in the registry does not matter between stages.
    let node = node(&[&HANDLER, &GUARD]);
    let [Effect::Route(error)] = &yields(&node, &packet(GET, Pass::Server)).await[..] else {
        panic!("no answer")
    };
    assert_eq!(error.error_condition(), Some(StanzaCondition::NotAcceptable));
    assert_eq!(error.to().map(|to| to.as_str()), Some("a@localhost/x"));
    assert_eq!(PROCESSED.load(Ordering::Relaxed), 0, "a blocked packet was processed");

    let other = packet(&GET.replace("id='1'", "id='2'"), Pass::Server);
    assert_eq!(ids(&yields(&node, &other).await), ["handled"]);
    assert_eq!(PROCESSED.load(Ordering::Relaxed), 1);
}

/// S6, S9: a postprocessor sees only what no processor handled; after the last of them comes the default.
#[actix_rt::test]
async fn s6_postprocessors_see_what_nobody_handled() {
    static HANDLER: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |packet| match packet.stanza.id() {
            Some("1") => Outcome::Done(Vec::new()),
            _ => Outcome::Pass,
        },
        ..NOTHING
    };
    static LAST: MadeUp = MadeUp {
        postprocess: |packet| match packet.stanza.id() {
            Some("3") => Outcome::Pass,
            _ => Outcome::Done(vec![said("post")]),
        },
        ..NOTHING
    };
    let node = node(&[&LAST, &HANDLER]);
    let get = |id: &str| packet(&GET.replace("id='1'", &format!("id='{id}'")), Pass::Server);
    assert!(yields(&node, &get("1")).await.is_empty(), "handled with no result is handled");
    assert_eq!(ids(&yields(&node, &get("2")).await), ["post"]);
    let [Effect::Route(default)] = &yields(&node, &get("3")).await[..] else { panic!("no default") };
    assert_eq!(default.error_condition(), Some(StanzaCondition::ServiceUnavailable));
}

/// S7, S8: the second blocking point. Results of every stage pass the filters, also those that came later.
#[actix_rt::test]
async fn s7_s8_filters_see_the_results_of_every_stage() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    static SOURCE: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        preprocess: |packet| match packet.stanza.id() {
            Some("pre") => Verdict::Block(vec![said("bad"), said("good")]),
            _ => Verdict::Pass,
        },
        process: |packet| match packet.stanza.id() {
            Some("process") => Outcome::Done(vec![said("bad"), said("good")]),
            Some("later") => Outcome::later(async { vec![said("bad"), said("good")] }),
            _ => Outcome::Pass,
        },
        postprocess: |_| Outcome::Done(vec![said("bad"), said("good")]),
        ..NOTHING
    };
    static FILTER: MadeUp = MadeUp {
        filter: |stanza| {
            SEEN.fetch_add(1, Ordering::Relaxed);
            stanza.id() != Some("bad")
        },
        ..NOTHING
    };
    let node = node(&[&SOURCE, &FILTER]);
    for id in ["pre", "process", "later", "post"] {
        let get = packet(&GET.replace("id='1'", &format!("id='{id}'")), Pass::Server);
        let effects = yields(&node, &get).await;
        SEEN.store(0, Ordering::Relaxed);
        let allowed: Vec<Effect> =
            effects.into_iter().filter(|effect| stage::filter(&node.modules, effect, &view(&node))).collect();
        assert_eq!((ids(&allowed), SEEN.load(Ordering::Relaxed)), (vec!["good"], 2), "{id}");
    }
}

/// S7: what a filter stops is not sent; the receiver's mailbox stays empty, and the rest arrives.
#[actix_rt::test]
async fn s7_a_filtered_result_is_not_sent() {
    static RESULTS: AtomicUsize = AtomicUsize::new(0);
    static FILTER: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |_| {
            RESULTS.fetch_add(1, Ordering::Relaxed);
            Outcome::Done(Vec::new())
        },
        filter: |stanza| stanza.id() != Some("stopped"),
        ..NOTHING
    };
    let node = node(&[&FILTER]);
    let get = |id: &str| Effect::Route(stanza(&GET.replace("id='1'", &format!("id='{id}'"))));
    delivery::drive(&node, vec![get("stopped"), get("sent"), get("stopped")]).await;
    assert_eq!(RESULTS.load(Ordering::Relaxed), 1);
}

/// S10: a packet stays as it is: a changed stanza is another value, and all modules see the first.
#[actix_rt::test]
async fn s10_a_packet_is_immutable_while_it_is_processed() {
    static CHANGER: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |packet| {
            let other = FullJid::new("c@localhost/z").unwrap();
            Outcome::Done(vec![Effect::Route(packet.stanza.with_to(other))])
        },
        ..NOTHING
    };
    static READER: MadeUp =
        MadeUp { process: |packet| Outcome::Done(vec![Effect::Route(packet.stanza.clone())]), ..CHANGER };
    let node = node(&[&CHANGER, &READER]);
    let sent = packet(GET, Pass::Server);
    let before = sent.stanza.to_bytes();
    let effects = yields(&node, &sent).await;
    let to: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Route(stanza) => stanza.to().unwrap().as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(to, ["c@localhost/z", "localhost"]);
    assert_eq!(sent.stanza.to_bytes(), before);
}

/// S11: each stage yields none, one or many results, in its order.
#[actix_rt::test]
async fn s11_each_stage_yields_any_number_of_results() {
    fn many(packet: &Packet) -> Effects {
        (0..packet.stanza.id().unwrap().len() - 1).map(|number| said(&number.to_string())).collect()
    }
    static PRE: MadeUp = MadeUp { preprocess: |packet| Verdict::Block(many(packet)), ..NOTHING };
    static PROCESS: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |packet| Outcome::Done(many(packet)),
        ..NOTHING
    };
    static POST: MadeUp = MadeUp { postprocess: |packet| Outcome::Done(many(packet)), ..NOTHING };
    for module in [&PRE, &PROCESS, &POST] {
        let node = node(&[module]);
        for (id, expected) in [("x", &[][..]), ("xx", &["0"]), ("xxxx", &["0", "1", "2"])] {
            let get = packet(&GET.replace("id='1'", &format!("id='{id}'")), Pass::Server);
            assert_eq!(ids(&yields(&node, &get).await), expected);
        }
    }
}

/// T17: the time of modules that compute is told, of one pass in 61.
#[actix_rt::test]
async fn t17_the_time_of_modules_that_compute_is_sampled() {
    static BUSY: MadeUp = MadeUp {
        interests: const { &[Interest::iq_get("urn:q", At::SERVER)] },
        process: |_| {
            let began = std::time::Instant::now();
            while began.elapsed() < std::time::Duration::from_micros(50) {}
            Outcome::Done(Vec::new())
        },
        ..NOTHING
    };
    let node = node(&[&BUSY]);
    let numbers = || node.modules.members().first().unwrap().counts.numbers();
    for _ in 0..10 * crate::metrics::SAMPLED {
        let _effects = yields(&node, &packet(GET, Pass::Server)).await;
    }
    let told = numbers();
    // Both stages count their passes by themselves.
    assert_eq!((told.handled, told.timed), (610, 20));
    assert!(told.timed_seconds >= 10.0 * 0.000_05, "{told:?}");
    assert_eq!(told.waited, 0);
}
