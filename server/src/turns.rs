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

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many have their turn in one pass of an arbiter's queue: what a message waits for at each hop is that many logins at
/// most, about a millisecond.
const A_PASS: usize = 8;

thread_local! {
    static HERE: RefCell<Turns> = RefCell::default();
}

/// The turns of one arbiter.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Arc<Mutex<Ticket>>>>,
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
    /// Those of this arbiter.
    #[must_use]
    pub fn here() -> Turns {
        let turns = HERE.with_borrow(Clone::clone);
        if !std::mem::replace(&mut *turns.0.served.lock(), true) {
            let served = Served(Arc::clone(&turns.0));
            actix_rt::spawn(async move { served.give().await });
        }
        turns
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
                self.0.waiting.lock().push_back(Arc::clone(ticket));
                self.0.filled.notify_one();
            }
        }
        Poll::Pending
    }
}

/// Gives turns as long as its arbiter runs.
struct Served(Arc<Queue>);

impl Served {
    async fn give(self) {
        loop {
            for _ in 0..A_PASS {
                let Some(ticket) = self.0.waiting.lock().pop_front() else { break };
                let before = std::mem::replace(&mut *ticket.lock(), Ticket::Granted);
                if let Ticket::Waiting(waker) = before {
                    waker.wake();
                }
            }
            if self.0.waiting.lock().is_empty() {
                self.0.filled.notified().await;
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
        let done = Rc::new(Cell::new(0));
        for _ in 0..1_000 {
            let done = Rc::clone(&done);
            actix_rt::spawn(Turns::here().each(async move {
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
        assert!((1..=2 * A_PASS).contains(&most), "{most} in one pass");
    }

    #[actix_rt::test]
    async fn turns_are_given_in_order_and_who_gave_up_holds_nobody_up() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 * A_PASS {
            let order = Rc::clone(&order);
            tasks.push(actix_rt::spawn(async move {
                Turns::here().next().await;
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
