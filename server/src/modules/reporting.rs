//! XEP-0377: Blocking Command Reports. A user who blocks somebody may say why; the blocking command hands it on from here
//! to those who look after the service: a message to each, which their clients show at once, and a row in their own
//! private data, which they read by a command.
//!
//! They are the accounts of this server among `contact.abuse`, or else `xmpp.admins`. Reports go to nobody else: neither
//! to the server of whom they are about nor to third parties, so that the options of §5 have nothing to allow.

use std::collections::BTreeSet;
use std::sync::Arc;

use minidom::Element;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use althing_cluster::wire;
use althing_proto::form::{Answers, Field, Form};
use althing_proto::jid::{self, BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

use super::commands::command::{Call, Command, NextStep, NoteKind, Step};
use super::{Feature, Module, Spec, cut};
use crate::auth::rate::RateLimit;
use crate::metrics;
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, View};
use crate::session::effect::Effect;
use crate::storage::{RowBound, StorageError};

/// The module.
pub(super) const MODULE: Reporting = Reporting;

const SPEC: Spec =
    Spec { name: "reporting", document: "XEP-0377", version: "0.4.1", title: "Blocking Command Reports" };

const SPAM: &str = "urn:xmpp:reporting:spam";
const ABUSE: &str = "urn:xmpp:reporting:abuse";

/// Reports of one account: at once, and in an hour. Beyond it they are counted and not taken.
const PACE: (u32, u32) = (20, 60);

/// Longest text and longest name of a reason that are taken, in bytes; the rest is left out.
const MAX_TEXT: usize = 2_000;

/// Most stanzas that a report names; the rest is left out.
const MAX_STANZAS: usize = 20;

/// What is kept for each who is to get reports. When it is full they are told of further ones by message only.
const KEPT: RowBound = RowBound { rows: 1_000, bytes: 4 * 1024 * 1024 };

/// Most reports that one run of the command shows.
const SHOWN: usize = 50;

/// Most who get each report.
const MOST_READERS: usize = 10;

pub(super) struct Reporting;

impl Module for Reporting {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::REPORTING, at: At::SERVER }]
    }

    fn commands(&self) -> &'static [&'static dyn Command] {
        &[&ListReports]
    }
}

/// Who may report how often.
pub struct Reports(Mutex<RateLimit<BareJid>>);

impl Default for Reports {
    fn default() -> Self {
        Reports(Mutex::new(RateLimit::new(PACE.0, PACE.1)))
    }
}

/// A report. Fields never change: what must becomes another type, under another namespace of private data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Whom it is about.
    about: String,
    /// The URN of its reason (§4).
    reason: String,
    /// The user's own words.
    text: String,
    /// Stanzas that it is about: `by` and `id` (XEP-0359).
    stanzas: Vec<(String, String)>,
}

/// A report as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    at: Timestamp,
    from: String,
    report: Report,
}

/// What an item of a blocking command reports of `about` (§6): `None` where it reports nothing, an error where it has no
/// reason. Whatever it is, the block is as good as without it.
pub(super) fn read(item: &Element, about: &Jid) -> Option<Result<Report, ()>> {
    let report = item.get_child("report", ns::REPORTING)?;
    let Some(reason) = report.attr("reason").filter(|reason| !reason.trim().is_empty()) else {
        return Some(Err(()));
    };
    let stanzas = report.children().filter(|child| child.is("stanza-id", ns::STANZA_ID));
    let short = |text: &str| cut(text, MAX_TEXT).to_owned();
    let named = stanzas.filter_map(|stanza| Some((short(stanza.attr("by")?), short(stanza.attr("id")?))));
    let text = report.get_child("text", ns::REPORTING).map(Element::text).unwrap_or_default();
    Some(Ok(Report {
        about: about.to_string(),
        reason: short(reason.trim()),
        text: short(text.trim()),
        stanzas: named.take(MAX_STANZAS).collect(),
    }))
}

/// Takes what `from` reports in a block that was done.
pub(super) async fn take(
    node: &Arc<NodeContext>,
    from: &BareJid,
    reports: Vec<Result<Report, ()>>,
) -> Effects {
    let readers = readers(node);
    let mut effects = Vec::new();
    for report in reports {
        let own = |report: &Report| jid::parse(&report.about).is_ok_and(|about| about.to_bare() == *from);
        let Some(report) = report.ok().filter(|report| !own(report)) else {
            node.metrics.report(metrics::Report::Malformed);
            continue;
        };
        if !node.reports.0.lock().admit_as(from.clone(), node.now()) {
            node.metrics.report(metrics::Report::RateLimited);
            continue;
        }
        node.metrics.report(match report.reason.as_str() {
            SPAM => metrics::Report::Spam,
            ABUSE => metrics::Report::Abuse,
            _ => metrics::Report::Other,
        });
        tracing::info!(%from, jid = %report.about, reason = %report.reason, "abuse reported");
        let kept = Kept { at: node.now(), from: from.to_string(), report };
        for reader in &readers {
            keep(node, reader, &kept).await;
            effects.push(Effect::Route(message(&kept, from, reader)));
        }
    }
    effects
}

/// Who gets reports.
fn readers(node: &NodeContext) -> BTreeSet<BareJid> {
    let config = node.config();
    let address = |uri: &String| jid::parse(uri.strip_prefix("xmpp:")?.split('?').next()?).ok();
    let account = |jid: &Jid| jid.node().is_some() && node.serves(jid.domain().as_str());
    let named: BTreeSet<BareJid> =
        config.contact.abuse.iter().filter_map(address).filter(account).map(Jid::into_bare).collect();
    if !named.is_empty() {
        return named.into_iter().take(MOST_READERS).collect();
    }
    let admins = config.xmpp.admins.iter().filter_map(|admin| jid::parse(admin).ok());
    admins.map(Jid::into_bare).take(MOST_READERS).collect()
}

async fn keep(node: &NodeContext, reader: &BareJid, kept: &Kept) {
    let Some(random) = node.random::<4>().map(u32::from_be_bytes) else { return };
    // Ordered by time; the rest tells apart what comes at the same moment.
    let key = format!("{:015}-{random:08x}", kept.at.as_millis());
    // Texts always encode.
    let value = wire::encode(kept).unwrap_or_default();
    match node.storage.private.put_within(reader, ns::REPORTING, &key, value, KEPT).await {
        Ok(()) | Err(StorageError::UnknownUser { .. }) => {}
        Err(error) => {
            node.metrics.report(metrics::Report::NotKept);
            tracing::warn!(jid = %reader, %error, "a report of abuse was not kept");
        }
    }
}

/// The message to somebody who gets reports: in words, and as the blocking command had it.
fn message(kept: &Kept, from: &BareJid, reader: &BareJid) -> Stanza {
    let report = &kept.report;
    let mut words = format!("{} reports {}: {}", kept.from, report.about, short(&report.reason));
    if !report.text.is_empty() {
        words.push_str("\n\n");
        words.push_str(&report.text);
    }
    let stanzas = report.stanzas.iter().map(|(by, id)| {
        Element::builder("stanza-id", ns::STANZA_ID).set(name!("by"), by).set(name!("id"), id).build()
    });
    let text = Some(&report.text).filter(|text| !text.is_empty());
    let text = text.map(|text| Element::builder("text", ns::REPORTING).append(text.as_str()).build());
    let payload = Element::builder("report", ns::REPORTING)
        .set(name!("reason"), &report.reason)
        .append_all(stanzas.chain(text))
        .build();
    let item = Element::builder("item", ns::BLOCKING).set(name!("jid"), &report.about).append(payload);
    let message = Element::builder("message", ns::CLIENT)
        .append(Element::builder("subject", ns::CLIENT).append("Report of abuse"))
        .append(Element::builder("body", ns::CLIENT).append(words))
        .append(item)
        .build();
    let server = Jid::from_parts(None, from.domain(), None);
    Stanza::from_parts(Kind::Message(MessageType::Normal), Some(server), Some(reader.clone().into()), message)
}

/// The last word of the URN of a reason.
fn short(reason: &str) -> &str {
    match reason {
        SPAM => "spam",
        ABUSE => "abuse",
        other => other,
    }
}

/// Shows those who get reports what was reported, oldest first.
struct ListReports;

impl Command for ListReports {
    fn node(&self) -> &'static str {
        "urn:althing:commands:reports"
    }

    fn name(&self) -> &'static str {
        "Read Reports of Abuse"
    }

    fn may(&self, node: &NodeContext, asker: &Jid) -> bool {
        readers(node).contains(&asker.to_bare())
    }

    fn next(&self, mut call: Call) -> NextStep {
        let Some(answers) = call.answers.pop() else {
            let form = Form::ask("Reports of Abuse")
                .instruct("What users have reported while they blocked somebody.");
            return Step::ask(
                form.with(
                    Field::flag("forget", false).labelled("Forget those that are shown, once they were"),
                ),
            )
            .ready();
        };
        Box::pin(list(call, answers))
    }
}

async fn list(call: Call, answers: Answers) -> Result<Step, althing_proto::stanza::StanzaError> {
    let (storage, reader) = (&call.node.storage.private, call.asker.to_bare());
    let failed = |error: StorageError| super::admin::failed(&error);
    let mut rows = storage.list(&reader, ns::REPORTING, None, SHOWN + 1).await.map_err(failed)?;
    let more = rows.len() > SHOWN;
    rows.truncate(SHOWN);
    let column = |var: &str, label: &str| Field::text(var).labelled(label);
    let mut table = Form::result()
        .titled("Reports of Abuse")
        .column(column("at", "At"))
        .column(column("from", "By"))
        .column(column("about", "About"))
        .column(column("reason", "Reason"))
        .column(column("text", "Text"));
    for (key, value) in rows {
        if let Ok(Kept { at, from, report }) = wire::decode::<Kept>(&value) {
            let reason = short(&report.reason).to_owned();
            table = table.row([at.to_xep0082(), from, report.about, reason, report.text]);
        }
        if answers.flag("forget") {
            storage.delete(&reader, ns::REPORTING, &key).await.map_err(failed)?;
        }
    }
    let step = Step::tell(table);
    Ok(if more {
        step.note(NoteKind::Info, format!("there are more; these are the oldest {SHOWN}"))
    } else {
        step
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(xml: &str) -> Option<Result<Report, ()>> {
        let item = format!("<item xmlns='urn:xmpp:blocking' jid='m@x.example'>{xml}</item>");
        read(&item.parse().unwrap(), &Jid::new("m@x.example").unwrap())
    }

    #[test]
    fn a_report_has_a_reason_and_bounds() {
        assert_eq!(report(""), None);
        assert_eq!(report("<report xmlns='urn:xmpp:reporting:0' reason='x'/>"), None);
        assert_eq!(report("<report xmlns='urn:xmpp:reporting:1'/>"), Some(Err(())));
        let stanzas = "<stanza-id xmlns='urn:xmpp:sid:0' by='m@x.example' id='1'/>".repeat(30);
        let text = "ü".repeat(3_000);
        let full = report(&format!(
            "<report xmlns='urn:xmpp:reporting:1' reason='{SPAM}'>{stanzas}<text xml:lang='en'> {text}</text>\
             <report-origin/></report>"
        ));
        let full = full.unwrap().unwrap();
        assert_eq!((full.reason.as_str(), full.about.as_str()), (SPAM, "m@x.example"));
        assert_eq!((full.text.len(), full.stanzas.len()), (MAX_TEXT, MAX_STANZAS));
    }

    async fn told(node: &Arc<NodeContext>, from: &BareJid, about: &str) -> usize {
        let item = format!(
            "<item xmlns='urn:xmpp:blocking' jid='{about}'>\
             <report xmlns='urn:xmpp:reporting:1' reason='{SPAM}'/></item>"
        );
        let report = read(&item.parse().unwrap(), &Jid::new(about).unwrap());
        take(node, from, report.into_iter().collect()).await.len()
    }

    #[actix_rt::test]
    async fn reports_reach_those_who_look_after_the_service_and_nobody_floods_them() {
        let node = NodeContext::for_tests();
        node.configure(|config| {
            config.xmpp.admins = vec!["root@localhost".to_owned()];
            config.contact.abuse = vec![
                "mailto:a@b".to_owned(),
                "xmpp:abuse@localhost?message".to_owned(),
                "xmpp:x@y".to_owned(),
            ];
        });
        let node = Arc::new(node);
        let jid = |text: &str| BareJid::new(text).unwrap();
        assert_eq!(readers(&node), BTreeSet::from([jid("abuse@localhost")]));
        node.has_account(&jid("abuse@localhost")).await;
        let alice = jid("alice@localhost");
        assert_eq!(told(&node, &alice, "alice@localhost/x").await, 0, "nobody reports herself");
        for number in 0..PACE.0 {
            assert_eq!(told(&node, &alice, "m@x.example").await, 1, "{number}");
        }
        assert_eq!(told(&node, &alice, "m@x.example").await, 0, "too often");
        assert_eq!(told(&node, &jid("bob@localhost"), "m@x.example").await, 1);
        let rows =
            node.storage.private.list(&jid("abuse@localhost"), ns::REPORTING, None, 100).await.unwrap();
        assert_eq!(rows.len(), 21);
        let kept = rows.iter().map(|(_, row)| wire::decode::<Kept>(row).unwrap());
        let of_bob: Vec<_> = kept.filter(|kept| kept.from == "bob@localhost").collect();
        assert_eq!(of_bob.len(), 1);
        assert_eq!(of_bob[0].report.about, "m@x.example");
        node.configure(|config| config.contact.abuse.clear());
        assert_eq!(readers(&node), BTreeSet::from([jid("root@localhost")]));
    }

    /// What is on disk is read by later releases.
    #[test]
    fn golden_bytes() {
        let report = Report {
            about: "b".into(),
            reason: "c".into(),
            text: "d".into(),
            stanzas: vec![("e".into(), "f".into())],
        };
        let kept = Kept { at: Timestamp::from_millis(7), from: "a".into(), report };
        let bytes = wire::encode(&kept).unwrap();
        assert_eq!(bytes, b"\x07\x01a\x01b\x01c\x01d\x01\x01e\x01f");
        assert_eq!(wire::decode::<Kept>(&bytes).unwrap(), kept);
    }
}
