//! What the probes ask: is the node started, alive, ready?
//!
//! The three have different jobs. Startup says that the store is open and the listeners are bound.
//! Liveness is local and restarts the process when it fails, so it must never depend on other nodes.
//! Readiness only steers new clients to other nodes; open streams go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use althing_proto::time::Timestamp;
use parking_lot::RwLock;
use serde::Serialize;

/// Age of the last tick from which on the runtime counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// A condition of readiness from another part of the node: `Err` says in words what is missing.
type Condition = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What is wrong; empty when nothing is.
    pub why: String,
}

impl Check {
    fn new(name: &'static str, ok: bool, why: &str) -> Self {
        Check { name, ok, why: if ok { String::new() } else { why.to_owned() } }
    }
}

/// The health of one node. The node writes it, the probes read it, from any thread.
pub struct Health {
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    started: AtomicBool,
    listening: AtomicBool,
    draining: AtomicBool,
    last_tick: AtomicU64,
    certificate_until: AtomicU64,
    fatal: OnceLock<String>,
    conditions: RwLock<Vec<(&'static str, Condition)>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("readiness", &self.readiness()).finish_non_exhaustive()
    }
}

impl Health {
    /// A node that has just begun to start. `now` reads the clock.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Arc<Self> {
        let born = now().as_millis();
        Arc::new(Health {
            now: Box::new(now),
            started: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            last_tick: AtomicU64::new(born),
            certificate_until: AtomicU64::new(u64::MAX),
            fatal: OnceLock::new(),
            conditions: RwLock::new(Vec::new()),
        })
    }

    /// The store is open and all listeners are bound.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether clients are accepted.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Release);
    }

    /// The node is on its way down; there is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Something failed that only a restart can mend; the first reason stays.
    pub fn set_fatal(&self, why: String) {
        let _ = self.fatal.set(why);
    }

    /// When the served certificate expires.
    pub fn set_certificate_expiry(&self, until: Timestamp) {
        self.certificate_until.store(until.as_millis(), Ordering::Release);
    }

    /// The runtime is alive. Called by a task of the runtime, every few seconds.
    pub fn tick(&self) {
        self.last_tick.store((self.now)().as_millis(), Ordering::Release);
    }

    /// Adds a condition of readiness. It is asked at each probe, so it must answer at once.
    pub fn add_condition(
        &self,
        name: &'static str,
        condition: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.conditions.write().push((name, Box::new(condition)));
    }

    /// The checks of `/startupz`.
    #[must_use]
    pub fn startup(&self) -> Vec<Check> {
        let started = self.started.load(Ordering::Acquire);
        vec![
            Check::new("started", started, "the store is not open or a listener is not bound yet"),
            self.fatal_check(),
        ]
    }

    /// The checks of `/livez`: the runtime ticks, nothing is broken for good.
    #[must_use]
    pub fn liveness(&self) -> Vec<Check> {
        let age = (self.now)().since(Timestamp::from_millis(self.last_tick.load(Ordering::Acquire)));
        let why = format!("the runtime has not moved for {} s", age.as_secs());
        vec![Check::new("runtime", age < STUCK_AFTER, &why), self.fatal_check()]
    }

    /// The checks of `/readyz`: new clients are welcome.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        let until = Timestamp::from_millis(self.certificate_until.load(Ordering::Acquire));
        let mut checks = self.startup();
        checks.push(Check::new("listening", self.listening.load(Ordering::Acquire), "no client is accepted"));
        checks.push(Check::new(
            "not_draining",
            !self.draining.load(Ordering::Acquire),
            "the node is going down",
        ));
        let expired = format!("expired at {}", until.to_xep0082());
        checks.push(Check::new("certificate", (self.now)() <= until, &expired));
        checks.extend(self.conditions.read().iter().map(|(name, condition)| match condition() {
            Ok(()) => Check::new(name, true, ""),
            Err(why) => Check::new(name, false, &why),
        }));
        checks
    }

    fn fatal_check(&self) -> Check {
        let fatal = self.fatal.get();
        Check::new("not_broken", fatal.is_none(), fatal.map_or("", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(checks: &[Check]) -> Vec<&'static str> {
        checks.iter().filter(|check| !check.ok).map(|check| check.name).collect()
    }

    fn health() -> (Arc<Health>, Arc<AtomicU64>) {
        let clock = Arc::new(AtomicU64::new(1_000));
        let hand = clock.clone();
        (Health::new(move || Timestamp::from_millis(hand.load(Ordering::Relaxed))), clock)
    }

    #[test]
    fn a_node_becomes_ready_and_drains() {
        let (health, _) = health();
        assert_eq!(failing(&health.startup()), ["started"]);
        assert_eq!(failing(&health.readiness()), ["started", "listening"]);
        health.set_started();
        health.set_listening(true);
        assert_eq!(failing(&health.startup()), [""; 0]);
        assert_eq!(failing(&health.readiness()), [""; 0]);
        health.set_draining();
        assert_eq!(failing(&health.readiness()), ["not_draining"]);
        assert_eq!(failing(&health.liveness()), [""; 0]);
    }

    #[test]
    fn a_runtime_without_ticks_is_not_alive() {
        let (health, clock) = health();
        clock.store(30_999, Ordering::Relaxed);
        assert_eq!(failing(&health.liveness()), [""; 0]);
        clock.store(31_000, Ordering::Relaxed);
        assert_eq!(failing(&health.liveness()), ["runtime"]);
        health.tick();
        assert_eq!(failing(&health.liveness()), [""; 0]);
    }

    #[test]
    fn the_first_fatal_reason_stays() {
        let (health, _) = health();
        health.set_fatal("disk".to_owned());
        health.set_fatal("later".to_owned());
        assert_eq!(failing(&health.liveness()), ["not_broken"]);
        assert_eq!(health.liveness()[1].why, "disk");
    }

    #[test]
    fn an_expired_certificate_and_a_failed_condition_make_unready() {
        let (health, clock) = health();
        health.set_started();
        health.set_listening(true);
        health.set_certificate_expiry(Timestamp::from_millis(2_000));
        health.add_condition("leader", || Err("none".to_owned()));
        assert_eq!(failing(&health.readiness()), ["leader"]);
        clock.store(2_001, Ordering::Relaxed);
        assert_eq!(failing(&health.readiness()), ["certificate", "leader"]);
    }
}
