//! Which fault comes when, where and for how long. PURE: the seed decides.

use std::time::Duration;

use super::dice::Dice;

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and a start on the same data.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// SIGTERM, and a start on the same data.
    Terminate,
    /// The network between it and the others drops all, both ways. Its clients still reach it.
    Cut,
    /// It is not heard by the others, but hears them.
    Mute,
    /// It does not hear the others, but is heard.
    Deaf,
}

/// What needs no network of one's own.
const ANYWHERE: [Kind; 3] = [Kind::Kill, Kind::Stop, Kind::Terminate];
/// What needs one.
const NETWORK: [Kind; 3] = [Kind::Cut, Kind::Mute, Kind::Deaf];

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Peace before it.
    pub peace: Duration,
    /// What is done.
    pub kind: Kind,
    /// To which node.
    pub node: usize,
    /// How long it goes on after the time when the others have given the node's addresses away.
    pub hold: Duration,
}

/// The faults of a seed, without an end. Each kind comes once in each round.
#[derive(Debug, Clone)]
pub struct Plan {
    dice: Dice,
    nodes: usize,
    kinds: Vec<Kind>,
    round: Vec<Kind>,
}

impl Plan {
    /// For so many nodes; `network`: whether theirs can be cut.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, network: bool) -> Plan {
        let mut kinds = ANYWHERE.to_vec();
        if network {
            kinds.extend(NETWORK);
        }
        Plan { dice: Dice::new(seed, u64::MAX), nodes, kinds, round: Vec::new() }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.dice.shuffle(&mut self.round);
        }
        let kind = self.round.pop()?;
        let mut millis = |least, range| Duration::from_millis(least + self.dice.below(range));
        let (peace, hold) = (millis(500, 2_000), millis(200, 1_500));
        Some(Fault { peace, kind, node: self.dice.index(self.nodes), hold })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_repeats_its_faults_and_leaves_none_out() {
        let faults = |seed, network| Plan::new(seed, 3, network).take(12).collect::<Vec<_>>();
        assert_eq!(faults(5, true), faults(5, true));
        assert_ne!(faults(5, true), faults(6, true));
        let kinds = |faults: &[Fault]| faults.iter().map(|fault| fault.kind).collect::<BTreeSet<_>>();
        for seed in 0..20 {
            assert_eq!(kinds(&faults(seed, true)[..6]).len(), 6);
            assert_eq!(kinds(&faults(seed, false)), BTreeSet::from(ANYWHERE));
            assert!(faults(seed, true).iter().all(|fault| fault.node < 3));
        }
    }
}
