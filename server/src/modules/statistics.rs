//! XEP-0039: Statistics Gathering. The figures of all nodes, added up, for administrators: by name, or all as a command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minidom::Element;

use althing_cluster::task::{NodeFigure, NodeFigures, TaskReply};
use althing_proto::form::{Answers, Field, Form};
use althing_proto::ns;
use althing_proto::stanza::{Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

use super::commands::command::{Call, Command, NextStep, NoteKind, Simple, Step};
use super::{Feature, Module, Spec};
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, View, refusal};
use crate::session::effect::Effect;
use crate::statistics;

/// The module.
pub(super) const MODULE: Gathering = Gathering;

const SPEC: Spec =
    Spec { name: "statistics", document: "XEP-0039", version: "0.6.0", title: "Statistics Gathering" };

const COMMANDS: &[&dyn Command] = &[&Simple {
    node: "urn:althing:commands:statistics",
    name: "Get Server Statistics",
    form: None,
    act: tell_all,
}];

/// How long another node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all nodes have alike, or of which the greatest counts; the rest is added up.
const NOT_ADDED: &[&str] = &["uptime", "time/uptime", "sessions/cluster"];

pub(super) struct Gathering;

impl Module for Gathering {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::STATS, At::SERVER)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::STATS, at: At::SERVER }]
    }

    fn commands(&self) -> &'static [&'static dyn Command] {
        COMMANDS
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        if !packet.stanza.from().is_some_and(|asker| view.node.is_admin(asker)) {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let (node, packet) = (Arc::clone(view.node), packet.clone());
        Outcome::aside(async move {
            let figures = gather(&node).await;
            match answer(&packet.stanza, &figures) {
                Ok(query) => vec![Effect::Route(packet.stanza.result(Some(query)))],
                Err(error) => refusal(&packet, error),
            }
        })
    }
}

/// PURE: figures by name.
#[derive(Debug, Default)]
struct Figures {
    by_name: BTreeMap<String, (String, u64)>,
    /// Nodes that have not answered.
    silent: usize,
}

impl Figures {
    fn add(&mut self, figure: NodeFigure) {
        let entry = self.by_name.entry(figure.name);
        let added = !NOT_ADDED.contains(&entry.key().as_str());
        let (_, value) = entry.or_insert((figure.units, 0));
        *value = if added { value.saturating_add(figure.value) } else { figure.value.max(*value) };
    }
}

/// The figures of this node, with the three that every server should have (§"Core Statistics").
pub async fn of_node(node: &NodeContext) -> Vec<NodeFigure> {
    let figure =
        |name: &str, units: &str, value| NodeFigure { name: name.to_owned(), units: units.to_owned(), value };
    let all = statistics::snapshot(node).await;
    let sum =
        |start: &str| all.iter().filter(|one| one.name.starts_with(start)).map(|one| one.value).sum::<u64>();
    let uptime = node.now().since(node.started).as_secs();
    let core = [
        figure("time/uptime", "seconds", uptime),
        figure("bandwidth/packets-in", "packets", sum("stanzas/in/")),
        figure("bandwidth/packets-out", "packets", sum("stanzas/out/")),
    ];
    let others = all.iter().map(|one| figure(&one.name, one.units, one.value));
    core.into_iter().chain(others).collect()
}

/// The figures of all nodes.
async fn gather(node: &NodeContext) -> Figures {
    let mut figures = Figures::default();
    for (member, reply) in node.links.ask_all(&NodeFigures {}.into(), PATIENCE).await {
        match reply {
            Ok(TaskReply::NodeFigures(of_node)) => of_node.into_iter().for_each(|one| figures.add(one)),
            Ok(_) => figures.silent += 1,
            Err(error) => {
                tracing::warn!(%member, %error, "a node does not tell its statistics");
                figures.silent += 1;
            }
        }
    }
    figures
}

/// PURE: the names, or the values of those that were asked for.
fn answer(asked: &Stanza, figures: &Figures) -> Result<Element, StanzaError> {
    let query = asked.payload().filter(|query| query.is("query", ns::STATS));
    let query = query.ok_or(StanzaCondition::BadRequest)?;
    let stat = |called: &str| Element::builder("stat", ns::STATS).set(name!("name"), called);
    let failed = |called: &str, code: &str, text: &str| {
        let error = Element::builder("error", ns::STATS).set(name!("code"), code).append(text);
        stat(called).append(error).build()
    };
    let asked: Vec<&Element> = query.children().filter(|child| child.is("stat", ns::STATS)).collect();
    let mut told = Vec::new();
    if asked.is_empty() {
        told.extend(figures.by_name.keys().map(|called| stat(called).build()));
    }
    for one in asked {
        let called = one.attr("name").ok_or(StanzaCondition::BadRequest)?;
        told.push(match figures.by_name.get(called) {
            None => failed(called, "404", "Not Found"),
            // A sum without all its parts would be taken for one.
            Some(_) if figures.silent > 0 => failed(called, "503", "Service Unavailable"),
            Some((units, value)) => {
                stat(called).set(name!("units"), units).set(name!("value"), value.to_string()).build()
            }
        });
    }
    Ok(Element::builder("query", ns::STATS).append_all(told).build())
}

fn tell_all(call: Call, _: Answers) -> NextStep {
    Box::pin(async move {
        let figures = gather(&call.node).await;
        let table = Form::result()
            .titled("Statistics of all nodes")
            .column(Field::text("name").labelled("Name"))
            .column(Field::text("value").labelled("Value"))
            .column(Field::text("units").labelled("Units"));
        let rows = figures.by_name.iter();
        let table = rows.fold(table, |table, (called, (units, value))| {
            table.row([called.as_str(), &value.to_string(), units])
        });
        let step = Step::tell(table);
        Ok(match figures.silent {
            0 => step,
            silent => step.note(NoteKind::Warn, format!("{silent} nodes have not answered")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(silent: usize) -> Figures {
        let mut figures = Figures { silent, ..Figures::default() };
        for (name, value) in [("uptime", 5), ("sessions", 1), ("uptime", 3), ("sessions", 2)] {
            figures.add(NodeFigure { name: name.to_owned(), units: "u".to_owned(), value });
        }
        figures
    }

    fn ask(content: &str, silent: usize) -> Result<String, StanzaError> {
        let iq = format!(
            "<iq xmlns='jabber:client' type='get' id='1'>\
             <query xmlns='http://jabber.org/protocol/stats'>{content}</query></iq>"
        );
        let answer = answer(&Stanza::parse(iq.parse().unwrap()).unwrap(), &figures(silent))?;
        let told = answer.children().map(|stat| {
            let error = stat.get_child("error", ns::STATS).and_then(|error| error.attr("code"));
            format!("{}={}", stat.attr("name").unwrap(), stat.attr("value").or(error).unwrap_or_default())
        });
        Ok(told.collect::<Vec<_>>().join(" "))
    }

    /// C9: results of all nodes, and what becomes of them when one is missing.
    #[test]
    fn c9_figures_are_added_up_unless_a_node_is_silent() {
        assert_eq!(ask("", 0).unwrap(), "sessions= uptime=");
        assert_eq!(
            ask("<stat name='uptime'/><stat name='sessions'/><stat name='x'/>", 0).unwrap(),
            "uptime=5 sessions=3 x=404"
        );
        assert_eq!(ask("<stat name='sessions'/>", 1).unwrap(), "sessions=503");
        assert_eq!(ask("<stat/>", 0).unwrap_err().condition, StanzaCondition::BadRequest);
    }
}
