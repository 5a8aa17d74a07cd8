//! PURE: token buckets by network address or account, for what may be done only now and then.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use althing_proto::time::Timestamp;

/// Most addresses or accounts remembered. When full: those whose bucket is full again are forgotten; if there are none,
/// everybody new is refused, so that a flood from many addresses cannot fill memory.
const MAX_KEYS: usize = 100_000;

/// A limit on how often each may do something: by network address, or by whatever else they are told apart.
#[derive(Debug)]
pub struct RateLimit<K = IpAddr> {
    burst: u32,
    per_token: Duration,
    /// Credit left, as of a moment: milliseconds of waiting, `per_token` of which are worth one token. Whole
    /// milliseconds are gained exactly, so that whoever tries often loses nothing by it.
    buckets: HashMap<K, (u64, Timestamp)>,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// At most `burst` at once, and `per_hour` in the long run.
    #[must_use]
    pub fn new(burst: u32, per_hour: u32) -> Self {
        let per_token = Duration::from_secs(3_600) / per_hour.max(1);
        RateLimit { burst: burst.max(1), per_token, buckets: HashMap::new() }
    }

    /// Other numbers. What somebody has left is time to wait, and goes on counting.
    pub fn set(&mut self, burst: u32, per_hour: u32) {
        let RateLimit { burst, per_token, .. } = Self::new(burst, per_hour);
        (self.burst, self.per_token) = (burst, per_token);
    }

    /// Whether `who` may do it once more now.
    pub fn admit_as(&mut self, who: K, now: Timestamp) -> bool {
        if !self.buckets.contains_key(&who) && self.buckets.len() >= MAX_KEYS {
            let full = self.full();
            self.buckets.retain(|_, bucket| refilled(*bucket, now, full) < full);
            if self.buckets.len() >= MAX_KEYS {
                return false;
            }
        }
        let (full, token) = (self.full(), self.token());
        let bucket = self.buckets.entry(who).or_insert((full, now));
        let credit = refilled(*bucket, now, full);
        let admitted = credit >= token;
        *bucket = (credit - if admitted { token } else { 0 }, now);
        admitted
    }

    fn full(&self) -> u64 {
        u64::from(self.burst).saturating_mul(self.token())
    }

    fn token(&self) -> u64 {
        u64::try_from(self.per_token.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl RateLimit {
    /// Whether somebody at `address` may do it once more now.
    pub fn admit(&mut self, address: IpAddr, now: Timestamp) -> bool {
        self.admit_as(network(address), now)
    }
}

fn refilled((credit, then): (u64, Timestamp), now: Timestamp, full: u64) -> u64 {
    let gained = u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX);
    credit.saturating_add(gained).min(full)
}

/// One customer of a provider has a /64 of IPv6: its addresses count as one.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_burst_then_a_trickle() {
        let mut limit = RateLimit::new(2, 2);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(limit.admit(address, at(0)));
        assert!(limit.admit(address, at(0)));
        assert!(!limit.admit(address, at(1)));
        assert!(!limit.admit(address, at(1_799)));
        assert!(limit.admit(address, at(1_801)));
        assert!(!limit.admit(address, at(1_802)));
        assert!(limit.admit("192.0.2.2".parse().unwrap(), at(1_802)), "another address");
    }

    #[test]
    fn trying_often_costs_nothing() {
        let mut limit = RateLimit::new(1, 3);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(limit.admit(address, at(0)));
        assert!((1..1_200).all(|second| !limit.admit(address, at(second))));
        assert!(limit.admit(address, at(1_200)));
    }

    #[test]
    fn a_v6_network_counts_as_one() {
        let mut limit = RateLimit::new(1, 1);
        assert!(limit.admit("2001:db8::1".parse().unwrap(), at(0)));
        assert!(!limit.admit("2001:db8::2".parse().unwrap(), at(0)));
        assert!(limit.admit("2001:db8:0:1::1".parse().unwrap(), at(0)));
        assert!(limit.admit("::ffff:192.0.2.1".parse().unwrap(), at(0)));
        assert!(!limit.admit("192.0.2.1".parse().unwrap(), at(0)));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let mut limit = RateLimit::new(1, 1);
        for number in 0..=MAX_KEYS as u32 {
            limit.admit(IpAddr::from(number.to_be_bytes()), at(0));
        }
        assert!(limit.buckets.len() <= MAX_KEYS);
        assert!(!limit.admit("203.0.113.9".parse().unwrap(), at(0)));
        assert!(limit.admit("203.0.113.9".parse().unwrap(), at(3_601)), "old buckets are forgotten");
    }
}
