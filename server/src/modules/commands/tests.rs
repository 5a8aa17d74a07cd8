//! Commands of two stages, and all that may go wrong between them.

use althing_proto::form::Field;
use althing_proto::stanza::Stanza;

use super::*;
use crate::modules::REGISTRY;
use crate::pipeline::Registry;

/// Asks for a word, then for another, and tells both.
struct TwoWords;

impl Command for TwoWords {
    fn node(&self) -> &'static str {
        "two-words"
    }

    fn name(&self) -> &'static str {
        "Two Words"
    }

    fn may(&self, _: &NodeContext, asker: &Jid) -> bool {
        asker.as_str().starts_with("alice@")
    }

    fn next(&self, call: Call) -> command::NextStep {
        let word = |var: &str| Form::ask(var).with(Field::text(var).required());
        let said: Vec<&str> =
            call.answers.iter().zip(["one", "two"]).filter_map(|(answers, var)| answers.get(var)).collect();
        match said[..] {
            [] => Step::Ask { form: word("one"), last: false }.ready(),
            [_] => Step::ask(word("two")).ready(),
            ["fail", ..] => Box::pin(std::future::ready(Err(StanzaCondition::Conflict.into()))),
            _ => Step::done().note(command::NoteKind::Info, said.join(" ")).ready(),
        }
    }
}

struct Words;

impl Module for Words {
    fn spec(&self) -> Spec {
        Spec { name: "words", document: "", version: "", title: "" }
    }

    fn commands(&self) -> &'static [&'static dyn Command] {
        &[&TwoWords]
    }
}

fn node() -> Arc<NodeContext> {
    let mut node = NodeContext::for_tests();
    node.modules = Registry::new(REGISTRY.iter().copied().chain([&Words as &'static dyn Module]));
    Arc::new(node)
}

/// The answer to a command of alice's, or of whoever is named.
async fn ask_as(node: &Arc<NodeContext>, who: &str, attributes: &str, content: &str) -> Stanza {
    let iq = format!(
        "<iq xmlns='jabber:client' type='set' id='1' from='{who}' to='localhost'>\
         <command xmlns='http://jabber.org/protocol/commands' {attributes}>{content}</command></iq>"
    );
    let packet = Packet::new(Stanza::parse(iq.parse().unwrap()).unwrap(), Pass::Server);
    let view = View { node, session: None, now: node.now() };
    let effects = match MODULE.process(&packet, &view) {
        Outcome::Later(future) | Outcome::Aside(future) | Outcome::First(_, future) => future.await,
        Outcome::Done(effects) => effects,
        Outcome::Pass => panic!("not handled"),
    };
    match &effects[..] {
        [Effect::Route(answer)] => answer.clone(),
        other => panic!("{other:?}"),
    }
}

async fn ask(node: &Arc<NodeContext>, attributes: &str, content: &str) -> Stanza {
    ask_as(node, "alice@localhost/desk", attributes, content).await
}

fn submit(var: &str, value: &str) -> String {
    format!("<x xmlns='jabber:x:data' type='submit'><field var='{var}'><value>{value}</value></field></x>")
}

/// Status, actions and the form's title of an answer.
fn told(answer: &Stanza) -> (String, String, String) {
    let command = answer.payload().unwrap();
    let names = |element: &minidom::Element| {
        element.children().map(|child| child.name().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let actions = command.get_child("actions", ns::COMMANDS);
    let text = Form::find(command).unwrap().map(|form| form.title.unwrap_or_default());
    let note = command.get_child("note", ns::COMMANDS).map(minidom::Element::text);
    let status = command.attr("status").unwrap().to_owned();
    (status, actions.map(names).unwrap_or_default(), text.or(note).unwrap_or_default())
}

fn is(answer: &Stanza, status: &str, actions: &str, text: &str) {
    assert_eq!(told(answer), (status.to_owned(), actions.to_owned(), text.to_owned()));
}

/// The condition of an error, with the specific one.
fn error(answer: &Stanza) -> String {
    let error = answer.element().get_child("error", ns::CLIENT).expect("an error");
    let specific = error.children().find(|child| child.has_ns(ns::COMMANDS));
    let condition = answer.error_condition().unwrap().name();
    format!("{} {condition} {}", error.attr("type").unwrap(), specific.map_or("", minidom::Element::name))
}

async fn begun(node: &Arc<NodeContext>) -> String {
    let first = ask(node, "node='two-words' action='execute'", "").await;
    is(&first, "executing", "next", "one");
    first.payload().unwrap().attr("sessionid").unwrap().to_owned()
}

/// XEP-0050 §2.4.2: forward, back, forward again, and to the end.
#[actix_rt::test]
async fn a_command_of_two_stages_goes_forth_and_back() {
    let node = node();
    let session = begun(&node).await;
    let on = format!("node='two-words' sessionid='{session}'");
    is(&ask(&node, &on, &submit("one", "a")).await, "executing", "prev complete", "two");
    is(&ask(&node, &format!("{on} action='prev'"), "").await, "executing", "next", "one");
    is(
        &ask(&node, &format!("{on} action='next'"), &submit("one", "b")).await,
        "executing",
        "prev complete",
        "two",
    );
    is(&ask(&node, &format!("{on} action='complete'"), &submit("two", "c")).await, "completed", "", "b c");
    assert_eq!(error(&ask(&node, &on, &submit("two", "c")).await), "cancel not-allowed session-expired");
}

/// XEP-0050 §2.4.3.
#[actix_rt::test]
async fn a_canceled_command_has_ended() {
    let node = node();
    let session = begun(&node).await;
    let cancel = format!("node='two-words' sessionid='{session}' action='cancel'");
    is(&ask(&node, &cancel, "").await, "canceled", "", "");
    assert_eq!(error(&ask(&node, &cancel, "").await), "cancel not-allowed session-expired");
    let session = begun(&node).await;
    let declined = "<x xmlns='jabber:x:data' type='cancel'/>";
    is(&ask(&node, &format!("node='two-words' sessionid='{session}'"), declined).await, "canceled", "", "");
}

/// XEP-0050 §4.4: each row of the table. The session outlives a mistake.
#[actix_rt::test]
async fn mistakes_have_their_errors_and_cost_no_session() {
    let node = node();
    let session = begun(&node).await;
    let on = format!("node='two-words' sessionid='{session}'");
    for (attributes, content, expected) in [
        (format!("{on} action='dance'"), String::new(), "modify bad-request malformed-action"),
        (format!("{on} action='prev'"), String::new(), "modify bad-request bad-action"),
        (format!("{on} action='complete'"), submit("one", "a"), "modify bad-request bad-action"),
        ("node='two-words' action='next'".into(), String::new(), "modify bad-request bad-action"),
        (on.clone(), String::new(), "modify bad-request bad-payload"),
        (on.clone(), submit("two", "a"), "modify bad-request bad-payload"),
        (on.clone(), "<x xmlns='jabber:x:data' type='form'/>".into(), "modify bad-request bad-payload"),
        ("node='two-words' sessionid='7'".into(), String::new(), "modify bad-request bad-sessionid"),
        ("node='no-words'".into(), String::new(), "cancel item-not-found "),
        (String::new(), String::new(), "modify bad-request "),
    ] {
        assert_eq!(error(&ask(&node, &attributes, &content).await), expected, "{attributes} {content}");
    }
    let other = ask_as(&node, "alice@localhost/phone", &on, &submit("one", "a")).await;
    assert_eq!(error(&other), "modify bad-request bad-sessionid", "a session is its asker's");
    let stranger = ask_as(&node, "bob@localhost/desk", "node='two-words'", "").await;
    assert_eq!(error(&stranger), "cancel forbidden ");
    is(&ask(&node, &on, &submit("one", "fail")).await, "executing", "prev complete", "two");
    let failed = ask(&node, &on, &submit("two", "x")).await;
    assert_eq!(error(&failed), "cancel conflict ");
    is(&ask(&node, &format!("{on} action='prev'"), "").await, "executing", "next", "one");
}
