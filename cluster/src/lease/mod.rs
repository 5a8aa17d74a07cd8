//! Whether this node may act: it serves only while the leader's lease holds (ARCHITECTURE.md, "Lease").
//!
//! The clock is CLOCK_BOOTTIME, which runs on while the process is stopped or the machine sleeps: a process that
//! wakes up sees at once that its lease is over, before it acts on what has piled up.
//!
//! | module      | what                                                  |
//! |-------------|-------------------------------------------------------|
//! | [`granter`] | PURE: the leader's side, and whom it declares down    |
//! | [`message`] | what a node asks the leader for                       |
//! | `rule`      | PURE: what grants and time make of the standing       |
//! | [`times`]   | PURE: T1, T2 and T3                                   |

pub mod granter;
pub mod message;
mod rule;
pub mod times;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

pub use granter::Granter;
pub use message::{LeaseReply, LeaseRequest};
pub use times::LeaseTimes;

use rule::Rule;

/// Whether a node may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The lease has been over for so long that the sessions are closed: the node has to come back under a new
    /// incarnation.
    Lost,
    /// The lease is over: no bind, no delivery, no task, no acknowledgement.
    Suspended,
    /// The lease holds.
    Serving,
}

/// Time since the machine has been started, also while the process did not run.
#[must_use]
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The lease of one node. Cheap to clone; every clone is the same lease.
#[derive(Debug, Clone)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What decides; `None` for a node that needs nobody's lease.
    rule: Option<Mutex<Rule>>,
    /// In nanoseconds of [`boot_time`]: until when the node serves. Copied from the rule, so that to ask takes
    /// no lock.
    suspend_at: AtomicU64,
    /// How often it was lost.
    losses: AtomicU64,
    standing: watch::Sender<Standing>,
}

impl Lease {
    /// The lease of a node that needs nobody's: it always serves.
    #[must_use]
    pub fn always() -> Self {
        Lease::with(None, u64::MAX, Standing::Serving)
    }

    /// A lease that nobody has granted yet: lost, until it [begins anew](Lease::begin_anew). With the times that
    /// are usual.
    #[must_use]
    pub fn none() -> Self {
        Lease::new(LeaseTimes::default())
    }

    /// As [`Lease::none`], with those times.
    #[must_use]
    pub fn new(times: LeaseTimes) -> Self {
        Lease::with(Some(Mutex::new(Rule::new(times))), 0, Standing::Lost)
    }

    fn with(rule: Option<Mutex<Rule>>, suspend_at: u64, standing: Standing) -> Self {
        let (suspend_at, standing) = (AtomicU64::new(suspend_at), watch::Sender::new(standing));
        Lease { shared: Arc::new(Shared { rule, suspend_at, losses: AtomicU64::new(0), standing }) }
    }

    /// Whether the node may act at this moment. Reads the clock: call it before each batch of reads, writes and
    /// tasks. Once it was [`Standing::Lost`] it stays that until [`Lease::begin_anew`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        if nanos(boot_time()) < self.shared.suspend_at.load(Ordering::SeqCst) {
            return Standing::Serving;
        }
        self.tick()
    }

    /// Whether the lease holds at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.standing() == Standing::Serving
    }

    /// How often the lease was lost. Whoever began under a smaller number is over, also when the lease holds again:
    /// it may have been lost for so short a time that nobody saw it.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::SeqCst)
    }

    /// Changes of the standing, seen within the time of one tick of whoever keeps the lease.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Waits while the node is suspended: `true` when it serves, `false` when the lease is lost.
    pub async fn serving(&self) -> bool {
        let mut changes = self.changes();
        loop {
            match self.standing() {
                Standing::Serving => return true,
                Standing::Lost => return false,
                Standing::Suspended => {}
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits until the node serves, also one whose lease is lost: it may come back.
    pub async fn held(&self) {
        self.until(Standing::Serving).await;
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) {
        self.until(Standing::Lost).await;
    }

    async fn until(&self, standing: Standing) {
        let mut changes = self.changes();
        while self.standing() != standing {
            if changes.changed().await.is_err() {
                // Whoever kept it is gone: nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// How long the lease still holds.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let until = self.shared.suspend_at.load(Ordering::SeqCst);
        Duration::from_nanos(until.saturating_sub(nanos(boot_time())))
    }

    /// The leader has granted the request that was sent at `sent` (of [`boot_time`]). The node serves until `sent`
    /// and `granted` from there, at most T1. Changes nothing for a lease that is lost, until it begins anew.
    pub fn grant(&self, sent: Duration, granted: Duration) {
        self.step(|rule, now| rule.grant(now, sent, granted));
    }

    /// Publishes what time has made of the standing. To be called several times a second by whoever keeps the
    /// lease.
    pub fn tick(&self) -> Standing {
        self.step(|_, _| {})
    }

    /// The node may serve again once it is granted a lease. To be called when a later incarnation of it is up in
    /// the applied route table, never before: what was lost is not to be taken up again.
    pub fn begin_anew(&self) {
        self.step(Rule::begin_anew);
    }

    /// The cluster has declared this node down: it is lost at once.
    pub fn lose(&self) {
        self.step(|rule, _| rule.lose());
    }

    fn step(&self, step: impl FnOnce(&mut Rule, Duration)) -> Standing {
        let Some(rule) = &self.shared.rule else { return Standing::Serving };
        let mut rule = rule.lock();
        // Under the lock: of two that decide, the later one knows the later time.
        let now = boot_time();
        let before = *self.shared.standing.borrow();
        // Time first: a loss that nobody has looked at must count, also where the step begins anew.
        let mut lost = rule.tick(now) == Standing::Lost;
        step(&mut rule, now);
        let standing = rule.tick(now);
        lost |= standing == Standing::Lost;
        if lost && before != Standing::Lost {
            self.shared.losses.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.suspend_at.store(nanos(rule.serves_until()), Ordering::SeqCst);
        if *self.shared.standing.borrow() != standing {
            self.shared.standing.send_replace(standing);
        }
        standing
    }
}

/// Nanoseconds, as far as a u64 goes: 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Lease {
        let [suspend, close, down] = [500, 800, 1_000].map(Duration::from_millis);
        Lease::new(LeaseTimes { suspend, close, down })
    }

    #[tokio::test]
    async fn always_serves_and_none_never() {
        assert!(Lease::always().holds() && Lease::always().serving().await);
        Lease::always().begin_anew();
        let none = Lease::none();
        none.grant(boot_time(), Duration::from_secs(3));
        assert_eq!((none.standing(), none.serving().await), (Standing::Lost, false));
        assert_eq!(none.remaining(), Duration::ZERO);
    }

    #[tokio::test]
    async fn time_alone_ends_a_lease_and_who_waits_gets_to_know() {
        let lease = short();
        lease.begin_anew();
        assert_eq!(lease.standing(), Standing::Suspended);
        lease.grant(boot_time(), Duration::from_secs(1));
        assert!(lease.holds() && lease.serving().await);
        assert!(lease.remaining() <= Duration::from_millis(500));
        let mut changes = lease.changes();
        let keeper = async {
            while lease.tick() != Standing::Lost {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let told = async { changes.wait_for(|standing| *standing == Standing::Lost).await.is_ok() };
        assert_eq!(tokio::join!(told, keeper), (true, ()));
        lease.grant(boot_time(), Duration::from_secs(1));
        assert_eq!(lease.standing(), Standing::Lost, "lost is sticky");
        assert_eq!(lease.losses(), 1);
    }

    #[test]
    fn a_loss_counts_once_also_when_nobody_has_seen_it() {
        let lease = short();
        assert_eq!(lease.losses(), 0, "it was never there");
        lease.begin_anew();
        lease.grant(boot_time(), Duration::from_secs(1));
        lease.lose();
        lease.lose();
        assert_eq!(lease.losses(), 1);
        let mut changes = lease.changes();
        lease.begin_anew();
        lease.grant(boot_time(), Duration::from_secs(1));
        assert!(lease.holds() && lease.losses() == 1);
        lease.lose();
        lease.begin_anew();
        lease.grant(boot_time(), Duration::from_secs(1));
        assert_eq!((*changes.borrow_and_update(), lease.losses()), (Standing::Serving, 2));
    }

    #[tokio::test]
    async fn who_waits_while_suspended_goes_on_with_a_grant() {
        let lease = Lease::none();
        lease.begin_anew();
        let granted = async { lease.grant(boot_time(), Duration::from_secs(3)) };
        assert_eq!(tokio::join!(lease.serving(), granted), (true, ()));
        assert!(lease.remaining() > Duration::from_secs(1));
    }

    #[test]
    fn a_grant_for_a_request_of_long_ago_is_none() {
        let lease = Lease::none();
        lease.begin_anew();
        lease.grant(boot_time().saturating_sub(Duration::from_secs(4)), Duration::from_secs(3));
        assert_eq!(lease.standing(), Standing::Suspended);
    }
}
