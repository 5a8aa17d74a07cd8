//! PURE: which of several connections of a component's domain a stanza goes to.
//!
//! Whoever writes to the domain has a *lane*, by the hash of his bare address; a lane belongs to one connection. All
//! nodes come to the same connection, for all see the same binds. So the stanzas of one sender meet one connection, in
//! their order (T7: the queue by hash); and when a connection comes or goes, only the lanes that it gets or had move.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid, Jid};

/// How many lanes a domain has.
pub const LANES: u8 = 64;

/// The lane of whoever sends from that address; all that has no sender shares one.
#[must_use]
pub fn lane_of(from: Option<&Jid>) -> u8 {
    let bare = from.map_or("", |from| from.as_str().split('/').next().unwrap_or_default());
    // FNV-1a: the same on every node and in every release. Whoever chooses addresses that share a lane has one
    // connection to himself, as he could have with a single address.
    let hash = bare.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (mix(hash) % u64::from(LANES)) as u8
}

/// How much a connection wants a lane: of all connections the one that wants it most has it ("rendezvous").
#[must_use]
pub fn claim(lane: u8, connection: BindIndex) -> u64 {
    mix(mix(connection.0) ^ u64::from(lane))
}

/// Spreads what differs in few bits over all of them (the finalizer of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A component's domain with the addresses of its lanes. Stanzas on their way are kept in order by these, as
/// those for a session are by its full JID: the address on the envelope, which is not the one on the stanza (T8).
#[derive(Debug)]
pub struct Domain {
    bare: BareJid,
    lanes: Vec<FullJid>,
}

impl Domain {
    /// The domain of that name; `None` if it is none.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        #[cfg(test)]
        tests::MADE.with(|made| made.set(made.get() + 1));
        let bare = BareJid::new(name).ok().filter(|bare| bare.node().is_none())?;
        let lanes = (0..LANES).map(|lane| bare.with_resource_str(&lane.to_string()).ok());
        Some(Domain { lanes: lanes.collect::<Option<_>>()?, bare })
    }

    /// The domain.
    #[must_use]
    pub fn bare(&self) -> &BareJid {
        &self.bare
    }

    /// The domain's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.bare.as_str()
    }

    /// The address of a lane. A lane that is none counts as the first.
    #[must_use]
    pub fn lane(&self, lane: u8) -> &FullJid {
        &self.lanes[usize::from(lane % LANES)]
    }
}

/// The lane that an address made by [`Domain::lane`] names.
#[must_use]
pub fn lane_named(address: &FullJid) -> Option<u8> {
    let lane: u8 = address.resource().as_str().parse().ok()?;
    (address.node().is_none() && lane < LANES).then_some(lane)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How many domains this thread has made.
        pub(in super::super) static MADE: Cell<usize> = const { Cell::new(0) };
    }

    fn owner(lane: u8, connections: &[u64]) -> u64 {
        let owner = connections.iter().copied().max_by_key(|connection| claim(lane, BindIndex(*connection)));
        owner.unwrap()
    }

    /// T7: what has one key has one queue.
    #[test]
    fn t7_all_resources_of_a_sender_share_a_lane_and_senders_are_spread() {
        let lane = |from: &str| lane_of(Some(&Jid::new(from).unwrap()));
        assert_eq!(lane("a@b/x"), lane("a@b"));
        assert_eq!(lane("a@b/x/y"), lane("a@b/z"));
        let mut senders = [0_u32; LANES as usize];
        (0..6_400).for_each(|n| senders[usize::from(lane(&format!("user{n}@example.org")))] += 1);
        assert!(senders.iter().all(|count| (50..=150).contains(count)), "{senders:?}");
    }

    /// Nodes of two releases must agree.
    #[test]
    fn golden_lanes_and_claims() {
        let lane = |from: &str| lane_of(Some(&Jid::new(from).unwrap()));
        assert_eq!([lane("alice@localhost"), lane("bob@localhost"), lane_of(None)], [26, 30, 27]);
        assert_eq!(claim(3, BindIndex(4_096)), 14_460_088_753_143_254_573);
    }

    #[test]
    fn connections_share_the_lanes_and_only_those_of_one_that_goes_move() {
        // Bind indices are far apart: a batch has room for 4,096.
        let three = [4_096, 8_192, 8_193];
        for connection in three {
            let share = (0..LANES).filter(|lane| owner(*lane, &three) == connection).count();
            assert!((10..=34).contains(&share), "{connection}: {share}");
        }
        let two = &three[..2];
        for lane in 0..LANES {
            let before = owner(lane, &three);
            assert!(before == 8_193 || owner(lane, two) == before, "lane {lane} moved without need");
        }
    }

    /// T8: a lane's address is a thing of its own.
    #[test]
    fn t8_the_address_of_a_lane_names_it_and_that_of_a_session_does_not() {
        let domain = Domain::new("irc.localhost").unwrap();
        assert_eq!(domain.lane(17).as_str(), "irc.localhost/17");
        assert_eq!(lane_named(domain.lane(17)), Some(17));
        for other in ["a@irc.localhost/17", "irc.localhost/x", "irc.localhost/64", "irc.localhost/300"] {
            assert_eq!(lane_named(&FullJid::new(other).unwrap()), None, "{other}");
        }
        assert!(Domain::new("a@irc.localhost").is_none() && Domain::new("").is_none());
    }
}
