//! What presence costs with many contacts on several nodes, and that each of them hears it once.

use std::collections::BTreeMap;

use althing_cluster::task::TaskKind;
use althing_proto::jid::BareJid;
use althing_proto::roster::{Direction, RosterChange, SubscriptionEvent, SubscriptionKind};
use althing_proto::stanza::Stanza;

use super::support::{Client, Node, cluster, message};
use crate::delivery::fan_out;
use crate::session::messages::EndReason;
use crate::storage::RosterLimits;

fn jid(user: &str) -> BareJid {
    BareJid::new(&format!("{user}@localhost")).unwrap()
}

/// On that node `owner` and `contact` see each other.
pub(super) async fn befriend(node: &Node, owner: &str, contact: &str) {
    let (owner, contact) = (jid(owner), jid(contact));
    node.context.has_account(&owner).await;
    for (direction, kind, request) in [
        (Direction::Outbound, SubscriptionKind::Subscribe, None),
        (Direction::Inbound, SubscriptionKind::Subscribed, None),
        (Direction::Inbound, SubscriptionKind::Subscribe, Some(b"<presence/>".to_vec())),
        (Direction::Outbound, SubscriptionKind::Subscribed, None),
    ] {
        let change = RosterChange::Subscription(SubscriptionEvent { direction, kind, request });
        let rosters = &node.context.storage.rosters;
        rosters.change(&owner, &contact, change, RosterLimits::default()).await.unwrap().unwrap();
    }
}

/// P9: a login with 150 contacts costs a delivery a contact, three tasks for each other node, and one read of its roster,
/// whatever has been before; so does its end, but for the read and the questions.
#[actix_rt::test]
async fn p9_a_login_costs_a_delivery_a_contact_and_a_few_tasks_a_node() {
    const CONTACTS: usize = 150;
    const LOGINS: usize = 10;
    let (_log, nodes) = cluster(3).await;
    let mut contacts = Vec::new();
    for number in 0..CONTACTS {
        let (node, user) = (&nodes[number % nodes.len()], format!("c{number}"));
        befriend(&nodes[0], "a", &user).await;
        befriend(node, &user, "a").await;
        let contact = node.bind(&user, "r").await;
        contact.send("<presence />").await;
        contacts.push(contact);
    }
    let before = nodes[0].reads.so_far();
    let others: Vec<_> = nodes.iter().map(|node| node.reads.so_far()).skip(1).collect();
    for login in 1..=LOGINS {
        let mut a = nodes[0].bind("a", &format!("r{login}")).await;
        a.send("<presence />").await;
        let sees = |number: usize| format!("from='c{number}@localhost/r'");
        for number in 0..CONTACTS {
            a.until(&sees(number), 1).await;
        }
        let (mine, from) = (a.session.jid.clone(), format!("from='a@localhost/r{login}'"));
        for contact in &mut contacts {
            contact.until(&from, 1).await;
        }
        a.session.end(EndReason::ClientGone).await;
        for contact in &mut contacts {
            contact.until(&format!("{from} type='unavailable'"), 1).await;
        }
        assert_eq!(a.read.matches("<presence ").count(), CONTACTS + 1, "one each, and its own: {mine}");

        for node in &nodes[1..] {
            let ran = |kind| node.tasks.count(kind);
            // One question, one broadcast, one farewell.
            assert_eq!((ran(TaskKind::ProbeSessions), ran(TaskKind::FanOutPresence)), (login, 2 * login));
        }
        let shown = nodes[0].tasks.count(TaskKind::ShowPresence);
        assert_eq!(shown, 2 * login, "one answer of each other node");
        let (logins, rosters) = nodes[0].reads.so_far();
        assert_eq!((logins - before.0, rosters - before.1), (login, 0), "its roster, once");
    }
    let now: Vec<_> = nodes.iter().map(|node| node.reads.so_far()).skip(1).collect();
    assert_eq!(now, others, "nobody else's roster is read for it");
    for contact in &contacts {
        assert_eq!(contact.read.matches("from='a@localhost/").count(), 2 * LOGINS, "{}", contact.read);
    }
}

/// Numbers that look random, the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

async fn each_hears_once(size: u64, seed: u64) {
    const ACCOUNTS: usize = 40;
    let mut numbers = Numbers(seed);
    let (_log, nodes) = cluster(size).await;
    let mut clients: Vec<Client> = Vec::new();
    for account in 0..ACCOUNTS {
        // Some have several resources, some are away.
        for resource in 0..numbers.below(4) {
            let node = &nodes[numbers.below(nodes.len())];
            let client = node.bind(&format!("c{account}"), &format!("r{resource}")).await;
            let (jid, index) = (client.session.jid.clone(), client.session.index);
            node.context.routes.set_priority(&jid, index, Some(0)).await.unwrap();
            clients.push(client);
        }
    }
    let accounts: Vec<BareJid> = (0..ACCOUNTS).map(|account| jid(&format!("c{account}"))).collect();
    for (round, node) in nodes.iter().enumerate() {
        let sender = node.bind("a", &format!("r{round}")).await;
        let from = sender.session.jid.clone();
        let xml =
            format!("<presence xmlns='jabber:client' from='{from}'><status>{round}</status></presence>");
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        let ran = |node: &Node| node.tasks.count(TaskKind::FanOutPresence);
        let before: Vec<usize> = nodes.iter().map(ran).collect();
        fan_out::to_accounts(&node.context, stanza, &accounts, None);
        let mut reached: BTreeMap<_, usize> = BTreeMap::new();
        for client in &mut clients {
            // Behind what came before it from the same sender: a second copy would be there.
            sender.send(&message(client.session.jid.as_str(), "normal", round)).await;
            client.until(&format!("id='n{round}'"), 1).await;
            let heard = client.read.matches(&format!("<status>{round}</status>")).count();
            *reached.entry(heard).or_default() += 1;
        }
        assert_eq!(reached, BTreeMap::from([(1, clients.len())]), "{size} nodes, seed {seed}");
        let after: Vec<usize> = nodes.iter().map(ran).collect();
        assert!(before.iter().zip(&after).all(|(before, after)| after - before <= 1), "a task a node");
        assert_eq!(before[round], after[round], "none for the node itself");
    }
}

/// P10: contacts are on whatever nodes, in no pattern; each resource hears each presence once.
#[actix_rt::test]
async fn p10_contacts_at_random_on_three_nodes_hear_once() {
    for seed in [1, 0x5eed] {
        each_hears_once(3, seed).await;
    }
}

/// P10: the same on five.
#[actix_rt::test]
async fn p10_contacts_at_random_on_five_nodes_hear_once() {
    each_hears_once(5, 7).await;
}

/// Whatever way the word of an end takes, it does not outlive the presence of a successor: on the same node or on another
/// one, with contacts on all of them.
#[actix_rt::test]
async fn a_farewell_behind_the_successors_presence_is_not_the_last_word() {
    let (_log, nodes) = cluster(3).await;
    let mut contacts = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let user = format!("c{number}");
        befriend(&nodes[0], "a", &user).await;
        befriend(node, &user, "a").await;
        let contact = node.bind(&user, "r").await;
        contact.send("<presence />").await;
        contacts.push(contact);
    }
    let accounts: Vec<BareJid> = (0..3).map(|number| jid(&format!("c{number}"))).collect();
    let xml = "<presence xmlns='jabber:client' from='a@localhost/r' type='unavailable'/>";
    let farewell = Stanza::parse(xml.parse().unwrap()).unwrap();
    for (round, node) in nodes.iter().enumerate() {
        let a = node.bind("a", "r").await;
        a.send(&format!("<presence ><status>{round}</status></presence>")).await;
        let shown = format!("<status>{round}</status>");
        for contact in &mut contacts {
            contact.until(&shown, 1).await;
        }
        // That of a session which was on the first node.
        fan_out::to_accounts(&nodes[0].context, farewell.clone(), &accounts, None);
        for contact in &mut contacts {
            contact.until_after(2 * round + 1, &shown).await;
        }
        // Nobody comes in the place of this one.
        a.session.end(EndReason::ClientGone).await;
        for contact in &mut contacts {
            contact.until(ENDS, 2 * (round + 1)).await;
            let (_, last) = contact.read.rsplit_once(ENDS).unwrap();
            assert!(!last.contains(&shown), "{}", contact.read);
        }
    }
}

/// Of the presence of an end.
const ENDS: &str = "type='unavailable'";

impl Client {
    /// Reads until it was told of so many ends, and what it was shown after the last one has that in it.
    async fn until_after(&mut self, ends: usize, shown: &str) {
        self.until(ENDS, ends).await;
        let is_last = |read: &str| read.rsplit_once(ENDS).is_some_and(|(_, last)| last.contains(shown));
        while !is_last(&self.read) {
            let times = self.read.matches(shown).count() + 1;
            self.until(shown, times).await;
        }
    }
}

/// A client whose connection breaks and who binds its resource again at once, here or elsewhere, is available in the end.
#[actix_rt::test]
async fn who_comes_back_at_once_is_seen() {
    const ROUNDS: usize = 60;
    let (_log, nodes) = cluster(3).await;
    let mut contacts = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let user = format!("c{number}");
        befriend(&nodes[0], "a", &user).await;
        befriend(node, &user, "a").await;
        let contact = node.bind(&user, "r").await;
        contact.send("<presence />").await;
        contacts.push(contact);
    }
    let mut a = nodes[0].bind("a", "r").await;
    a.send("<presence ><status>0</status></presence>").await;
    for round in 1..=ROUNDS {
        let comes = async {
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            let next = nodes[(round / 8) % 3].bind("a", "r").await;
            next.send(&format!("<presence ><status>{round}</status></presence>")).await;
            next
        };
        let ((), next) = tokio::join!(a.session.end(EndReason::ClientGone), comes);
        a = next;
        for contact in &mut contacts {
            contact.until_after(round, &format!("<status>{round}</status>")).await;
        }
    }
}
