//! What comes in storms takes turns: new connections, logins, first presence, farewells.
//!
//! An arbiter does what is ready in the order in which it became ready. When thousands of clients come at once, or leave,
//! all that they bring would stand in that queue, and a message would wait behind all of it at each of its hops. Here it
//! waits aside instead, and goes on a few at a time, between which all else has its turn. The storm takes no longer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::TurnMetrics;

/// How many have their turn in one pass of an arbiter's queue: what a message waits for at each hop is that many logins at
/// most, about a millisecond.
const A_PASS: usize = 8;

/// Who waits for longer is held up by what goes on beside: a pass of an arbiter with much to do takes long. Then the time
/// counts, not the pass.
const LONG: Duration = Duration::from_millis(250);

/// How many turns a second there are then at least, as far as [`MOST`] allows: about an eighth of an arbiter's time.
const FLOOR: u128 = 1_000;

/// Most in one pass whatever it took: what a message waits for at each hop stays within a few milliseconds.
const MOST: usize = 64;

/// PURE: how many have their turn in this pass, when the one before took so long, and the first in the queue has waited
/// for so long.
fn due(passed: Duration, waits: Duration) -> usize {
    if waits <= LONG {
        return A_PASS;
    }
    let by_time = passed.as_millis() * FLOOR / 1_000;
    usize::try_from(by_time).unwrap_or(MOST).clamp(A_PASS, MOST)
}

thread_local! {
    static HERE: RefCell<Arc<Queue>> = RefCell::default();
}

/// The turns of one arbiter.
#[derive(Debug, Clone)]
pub struct Turns {
    queue: Arc<Queue>,
    metrics: TurnMetrics,
}

/// One that stands in the queue; it counts itself.
#[derive(Debug)]
struct Waiter {
    ticket: Arc<Mutex<Ticket>>,
    since: Instant,
    metrics: TurnMetrics,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.metrics.waits_no_more();
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Waiter>>,
    filled: Notify,
    /// Whether somebody gives turns.
    served: Mutex<bool>,
}

/// Where somebody stands who wants a turn.
#[derive(Debug, Default)]
enum Ticket {
    #[default]
    None,
    Waiting(Waker),
    Granted,
}

impl Turns {
    /// Those of this arbiter, for a node with those metrics.
    #[must_use]
    pub fn here(metrics: &TurnMetrics) -> Turns {
        let queue = HERE.with_borrow(Arc::clone);
        if !std::mem::replace(&mut *queue.served.lock(), true) {
            let served = Served(Arc::clone(&queue));
            actix_rt::spawn(async move { served.give().await });
        }
        Turns { queue, metrics: metrics.clone() }
    }

    /// Polls `future` only when it has a turn.
    pub async fn each<F: Future>(self, future: F) -> F::Output {
        let (mut future, ticket) = (pin!(future), Arc::default());
        poll_fn(|cx| {
            ready!(self.poll(&ticket, cx));
            let polled = future.as_mut().poll(cx);
            *ticket.lock() = Ticket::None;
            polled
        })
        .await
    }

    /// Waits for one turn.
    pub async fn next(self) {
        let ticket = Arc::default();
        poll_fn(|cx| self.poll(&ticket, cx)).await;
    }

    fn poll(&self, ticket: &Arc<Mutex<Ticket>>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = ticket.lock();
        match &mut *state {
            Ticket::Granted => return Poll::Ready(()),
            Ticket::Waiting(waker) => waker.clone_from(cx.waker()),
            Ticket::None => {
                *state = Ticket::Waiting(cx.waker().clone());
                let (ticket, metrics) = (Arc::clone(ticket), self.metrics.clone());
                metrics.waits();
                self.queue.waiting.lock().push_back(Waiter { ticket, since: Instant::now(), metrics });
                self.queue.filled.notify_one();
            }
        }
        Poll::Pending
    }
}

/// Gives turns as long as its arbiter runs.
struct Served(Arc<Queue>);

impl Served {
    async fn give(self) {
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let first = self.0.waiting.lock().front().map(|waiter| waiter.since);
            let waits = first.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            for _ in 0..due(now.saturating_duration_since(last), waits) {
                let Some(waiter) = self.0.waiting.lock().pop_front() else { break };
                let before = std::mem::replace(&mut *waiter.ticket.lock(), Ticket::Granted);
                if let Ticket::Waiting(waker) = before {
                    waiter.metrics.granted(now.saturating_duration_since(waiter.since));
                    waker.wake();
                }
            }
            last = now;
            if self.0.waiting.lock().is_empty() {
                self.0.filled.notified().await;
                last = Instant::now();
            } else {
                // Behind those that have got a turn, and all else that is ready.
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        *self.0.served.lock() = false;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::yield_now;

    use super::*;

    /// P11: whoever has to do something else waits for a few of a storm, not for all.
    #[actix_rt::test]
    async fn p11_a_storm_goes_on_a_few_at_a_time() {
        let metrics = TurnMetrics::for_tests();
        let done = Rc::new(Cell::new(0));
        for _ in 0..1_000 {
            let done = Rc::clone(&done);
            actix_rt::spawn(Turns::here(&metrics).each(async move {
                // Ready more than once, as a login is.
                yield_now().await;
                done.set(done.get() + 1);
            }));
        }
        let mut most = 0;
        while done.get() < 1_000 {
            let before = done.get();
            yield_now().await;
            most = most.max(done.get() - before);
        }
        // What waits for long on a slow machine has more.
        assert!((1..=2 * MOST).contains(&most), "{most} in one pass");
    }

    #[test]
    fn p11_a_busy_arbiter_gives_turns_by_time() {
        let ms = Duration::from_millis;
        for (passed, waits, expected) in [
            // As a rule: a few a pass, however long that takes.
            (1, 0, A_PASS),
            (40, 250, A_PASS),
            // Who waits for long has a thousand a second.
            (1, 251, A_PASS),
            (20, 251, 20),
            (40, 5_000, 40),
            // But no message waits for all of them.
            (65, 5_000, MOST),
            (60_000, 60_000, MOST),
        ] {
            assert_eq!(due(ms(passed), ms(waits)), expected, "{passed} ms, {waits} ms");
        }
    }

    /// P11: whoever waits is counted, also who gives up, and nobody is counted for ever.
    #[actix_rt::test]
    async fn p11_who_waits_for_a_turn_is_counted() {
        let registry = prometheus::Registry::new();
        let metrics = crate::metrics::NodeMetrics::register(&registry, "node-0").unwrap().turns;
        let read = |line: &str| {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let value = text.lines().find_map(|shown| shown.strip_prefix(line)).unwrap();
            value.trim().parse::<usize>().unwrap()
        };
        let mut tasks: Vec<_> =
            (0..16 * A_PASS).map(|_| actix_rt::spawn(Turns::here(&metrics).next())).collect();
        yield_now().await;
        assert!(read("althing_turns_waiting") > 0);
        tasks.pop().unwrap().abort();
        for task in tasks {
            task.await.unwrap();
        }
        while read("althing_turns_waiting") > 0 {
            yield_now().await;
        }
        // Who gave up may have had his turn before.
        let count = format!("{}_count", "althing_turn_wait_seconds");
        assert!(read(&count) >= 16 * A_PASS - 1);
    }

    #[actix_rt::test]
    async fn turns_are_given_in_order_and_who_gave_up_holds_nobody_up() {
        let metrics = TurnMetrics::for_tests();
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 * A_PASS {
            let (order, metrics) = (Rc::clone(&order), metrics.clone());
            tasks.push(actix_rt::spawn(async move {
                Turns::here(&metrics).next().await;
                order.borrow_mut().push(number);
            }));
        }
        yield_now().await;
        tasks[A_PASS].abort();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.is_ok(), number != A_PASS);
        }
        let expected: Vec<usize> = (0..3 * A_PASS).filter(|number| *number != A_PASS).collect();
        assert_eq!(*order.borrow(), expected);
    }
}
