//! PURE: the order in which a module's queue runs its jobs.
//!
//! Jobs of one key run one after another, in the order in which they came; a key is free again when what its job
//! came to has been handed over. Jobs of different keys run at the same time, as many as there are workers. Urgent
//! ones go first, but never past an earlier one of their own key, and not always: others get each ninth turn.

use std::collections::{HashMap, VecDeque};

/// How soon somebody expects an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it: requests, messages.
    High,
    /// Nobody waits for it: presence.
    Low,
}

/// Urgent jobs that may go before one that is not.
const IN_A_ROW: u32 = 8;

/// What is to be run now, if anything.
pub type Next<J> = Option<(u64, J)>;

/// The jobs of one module.
#[derive(Debug)]
pub struct Schedule<J> {
    bound: usize,
    workers: usize,
    /// All jobs: waiting, running, being handed over.
    held: usize,
    running: usize,
    /// The keys with a job that is ready, running or being handed over, and the jobs behind it.
    keys: HashMap<u64, VecDeque<(Urgency, J)>>,
    urgent: VecDeque<(u64, J)>,
    patient: VecDeque<(u64, J)>,
    in_a_row: u32,
}

impl<J> Schedule<J> {
    /// For at most `bound` jobs, of which `workers` run at the same time.
    #[must_use]
    pub fn new(bound: usize, workers: usize) -> Self {
        Schedule {
            bound,
            workers: workers.max(1),
            held: 0,
            running: 0,
            keys: HashMap::new(),
            urgent: VecDeque::new(),
            patient: VecDeque::new(),
            in_a_row: 0,
        }
    }

    /// How many jobs there are: waiting, running, being handed over.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a job behind those of its key.
    ///
    /// # Errors
    /// The job, where the queue is full.
    pub fn offer(&mut self, key: u64, urgency: Urgency, job: J) -> Result<Next<J>, J> {
        if self.held >= self.bound {
            return Err(job);
        }
        self.held += 1;
        match self.keys.get_mut(&key) {
            Some(behind) => behind.push_back((urgency, job)),
            None => {
                self.keys.insert(key, VecDeque::new());
                self.make_ready(key, urgency, job);
            }
        }
        Ok(self.next())
    }

    /// A job has run: its worker is free, its key not yet.
    pub fn ran(&mut self) -> Next<J> {
        self.running = self.running.saturating_sub(1);
        self.next()
    }

    /// What a job of `key` came to has been handed over: the next of that key may run.
    pub fn handed_over(&mut self, key: u64) -> Next<J> {
        self.held = self.held.saturating_sub(1);
        match self.keys.get_mut(&key).and_then(VecDeque::pop_front) {
            Some((urgency, job)) => self.make_ready(key, urgency, job),
            None => {
                self.keys.remove(&key);
            }
        }
        self.next()
    }

    fn make_ready(&mut self, key: u64, urgency: Urgency, job: J) {
        match urgency {
            Urgency::High => self.urgent.push_back((key, job)),
            Urgency::Low => self.patient.push_back((key, job)),
        }
    }

    fn next(&mut self) -> Next<J> {
        if self.running >= self.workers {
            return None;
        }
        let others_turn = self.in_a_row >= IN_A_ROW && !self.patient.is_empty();
        let next = if others_turn { None } else { self.urgent.pop_front() };
        let next = match next {
            Some(urgent) => {
                self.in_a_row += 1;
                urgent
            }
            None => {
                self.in_a_row = 0;
                self.patient.pop_front()?
            }
        };
        self.running += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(next: Next<u32>) -> Option<u32> {
        next.map(|(_, job)| job)
    }

    /// S5: the queue has a fixed size, whatever stage its jobs are in, and takes more as soon as one is through.
    #[test]
    fn s5_a_full_queue_gives_the_job_back() {
        let mut queue = Schedule::new(3, 1);
        assert_eq!(queue.offer(1, Urgency::High, 10).map(job), Ok(Some(10)));
        assert_eq!(queue.offer(2, Urgency::High, 20).map(job), Ok(None));
        assert_eq!(queue.offer(1, Urgency::High, 11).map(job), Ok(None));
        assert_eq!(queue.offer(3, Urgency::High, 30).map(job), Err(30));
        assert_eq!(job(queue.ran()), Some(20));
        assert_eq!(queue.offer(3, Urgency::High, 30).map(job), Err(30), "not handed over yet");
        assert_eq!(job(queue.handed_over(1)), None, "the worker is busy");
        assert_eq!(queue.offer(3, Urgency::High, 30).map(job), Ok(None));
        assert_eq!(job(queue.ran()), Some(11));
        assert_eq!(queue.held(), 3);
    }

    /// T7: a key keeps its order, through whatever urgency; other keys do not wait for it.
    #[test]
    fn t7_one_key_keeps_its_order_and_other_keys_pass() {
        let mut queue = Schedule::new(100, 2);
        assert_eq!(queue.offer(1, Urgency::Low, 10).map(job), Ok(Some(10)));
        assert_eq!(queue.offer(1, Urgency::High, 11).map(job), Ok(None), "behind the first of its key");
        assert_eq!(queue.offer(2, Urgency::Low, 20).map(job), Ok(Some(20)));
        assert_eq!(queue.offer(2, Urgency::High, 21).map(job), Ok(None));
        assert_eq!(job(queue.ran()), None, "10 has run, but is not handed over");
        assert_eq!(job(queue.handed_over(1)), Some(11));
        assert_eq!((job(queue.ran()), job(queue.handed_over(2))), (None, Some(21)));
    }

    /// T7: what somebody waits for overtakes what nobody waits for, but not for ever.
    #[test]
    fn t7_urgent_jobs_overtake_and_leave_turns_to_others() {
        let mut queue = Schedule::new(100, 1);
        assert_eq!(queue.offer(0, Urgency::High, 0).map(job), Ok(Some(0)));
        for key in 1..=2 {
            assert_eq!(queue.offer(key, Urgency::Low, 100).map(job), Ok(None));
        }
        for key in 10..30 {
            assert_eq!(queue.offer(key, Urgency::High, 1).map(job), Ok(None));
        }
        let order: Vec<u32> = (0..12).filter_map(|_| job(queue.ran())).collect();
        assert_eq!(order, [1, 1, 1, 1, 1, 1, 1, 100, 1, 1, 1, 1]);
    }

    proptest! {
        /// Whatever comes and ends in whatever order: no more run than may, none is lost, each key keeps its order.
        #[test]
        fn no_job_is_lost_and_no_key_out_of_order(
            steps in prop::collection::vec((0_u64..5, any::<bool>(), 0_usize..4), 1..200),
            workers in 1_usize..4,
        ) {
            let mut queue = Schedule::new(20, workers);
            let (mut running, mut done, mut taken) = (Vec::new(), Vec::new(), Vec::new());
            for (number, (key, urgent, end)) in steps.into_iter().enumerate() {
                let urgency = if urgent { Urgency::High } else { Urgency::Low };
                if let Ok(next) = queue.offer(key, urgency, number) {
                    taken.push((key, number));
                    running.extend(next);
                }
                if end < running.len() {
                    let (key, number) = running.remove(end);
                    done.push((key, number));
                    running.extend(queue.ran());
                    running.extend(queue.handed_over(key));
                }
                prop_assert!(running.len() <= workers);
                prop_assert_eq!(queue.held(), taken.len() - done.len());
            }
            while let Some((key, number)) = running.pop() {
                done.push((key, number));
                running.extend(queue.ran());
                running.extend(queue.handed_over(key));
            }
            for key in 0..5 {
                let of = |list: &[(u64, usize)]| -> Vec<usize> {
                    list.iter().filter(|job| job.0 == key).map(|job| job.1).collect()
                };
                prop_assert_eq!(of(&done), of(&taken));
            }
            prop_assert_eq!(queue.held(), 0);
            prop_assert!(queue.keys.is_empty());
        }
    }
}
