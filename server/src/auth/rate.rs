//! PURE: token buckets a network address, for what strangers may do only now and then.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use althing_proto::time::Timestamp;

/// Most addresses remembered. When full: those whose bucket is full again are forgotten; if there are none,
/// everybody new is refused, so that a flood from many addresses cannot fill memory.
const MAX_ADDRESSES: usize = 100_000;

/// A limit on how often each address may do something.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    per_token: Duration,
    /// Tokens left, in thousandths, as of a moment.
    buckets: HashMap<IpAddr, (u64, Timestamp)>,
}

const TOKEN: u64 = 1_000;

impl RateLimit {
    /// At most `burst` at once, and `per_hour` in the long run.
    #[must_use]
    pub fn new(burst: u32, per_hour: u32) -> Self {
        let per_token = Duration::from_secs(3_600) / per_hour.max(1);
        RateLimit { burst: burst.max(1), per_token, buckets: HashMap::new() }
    }

    /// Whether `address` may do it once more now.
    pub fn admit(&mut self, address: IpAddr, now: Timestamp) -> bool {
        let address = network(address);
        if !self.buckets.contains_key(&address) && self.buckets.len() >= MAX_ADDRESSES {
            let (full, per_token) = (self.full(), self.per_token);
            self.buckets.retain(|_, bucket| refilled(*bucket, now, per_token, full) < full);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let full = self.full();
        let bucket = self.buckets.entry(address).or_insert((full, now));
        let tokens = refilled(*bucket, now, self.per_token, full);
        let admitted = tokens >= TOKEN;
        *bucket = (tokens - if admitted { TOKEN } else { 0 }, now);
        admitted
    }

    fn full(&self) -> u64 {
        u64::from(self.burst) * TOKEN
    }
}

fn refilled((tokens, then): (u64, Timestamp), now: Timestamp, per_token: Duration, full: u64) -> u64 {
    let gained = now.since(then).as_millis().saturating_mul(u128::from(TOKEN)) / per_token.as_millis().max(1);
    tokens.saturating_add(u64::try_from(gained).unwrap_or(u64::MAX)).min(full)
}

/// One customer of a provider has a /64 of IPv6: its addresses count as one.
fn network(address: IpAddr) -> IpAddr {
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
        for number in 0..=MAX_ADDRESSES as u32 {
            limit.admit(IpAddr::from(number.to_be_bytes()), at(0));
        }
        assert!(limit.buckets.len() <= MAX_ADDRESSES);
        assert!(!limit.admit("203.0.113.9".parse().unwrap(), at(0)));
        assert!(limit.admit("203.0.113.9".parse().unwrap(), at(3_601)), "old buckets are forgotten");
    }
}
