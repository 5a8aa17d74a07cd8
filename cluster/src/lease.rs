//! Whether this node may act: it serves only while the leader's lease holds (ARCHITECTURE.md, "Lease").
//!
//! The clock is CLOCK_BOOTTIME, which runs on while the process is stopped or the machine sleeps: a process that
//! wakes up sees at once that its lease is over, before it acts on what has piled up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

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
    /// In milliseconds of [`boot_time`]: until when the node serves.
    suspend_at: AtomicU64,
    /// As `suspend_at`: from when on it is lost.
    close_at: AtomicU64,
    standing: watch::Sender<Standing>,
}

impl Lease {
    /// The lease of a node that needs nobody's: it always serves.
    #[must_use]
    pub fn always() -> Self {
        Lease::with(u64::MAX, Standing::Serving)
    }

    /// A lease that nobody has granted yet.
    #[must_use]
    pub fn none() -> Self {
        Lease::with(0, Standing::Lost)
    }

    fn with(until: u64, standing: Standing) -> Self {
        let shared = Shared {
            suspend_at: AtomicU64::new(until),
            close_at: AtomicU64::new(until),
            standing: watch::Sender::new(standing),
        };
        Lease { shared: Arc::new(shared) }
    }

    /// Whether the node may act at this moment. Reads the clock: call it before each batch of reads, writes and
    /// tasks.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if *self.shared.standing.borrow() == Standing::Lost {
            return Standing::Lost;
        }
        let now = millis(boot_time());
        if now >= self.shared.close_at.load(Ordering::SeqCst) {
            Standing::Lost
        } else if now >= self.shared.suspend_at.load(Ordering::SeqCst) {
            Standing::Suspended
        } else {
            Standing::Serving
        }
    }

    /// Whether the lease holds at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.standing() == Standing::Serving
    }

    /// Changes of the standing, seen within the time of one tick of whoever keeps the lease.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Waits while the node is suspended: `true` when it serves, `false` when the lease is lost.
    pub async fn serving(&self) -> bool {
        if self.holds() {
            return true;
        }
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

    /// How long the lease still holds.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let until = self.shared.suspend_at.load(Ordering::SeqCst);
        Duration::from_millis(until.saturating_sub(millis(boot_time())))
    }
}

/// Milliseconds, as far as a u64 goes.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
