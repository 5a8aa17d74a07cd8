//! The old values of rows that are written while a snapshot is being read. sled has no view of a past moment:
//! so the first write of a key that the reader has not reached yet keeps what it replaces, and the reader
//! merges it over the rows.
//!
//! Bounded: [`MAX_HELD`] bytes in memory, the rest in a tree of its own. That is at most one old value for each
//! row written while the snapshot is read. What the reader has passed is let go.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use sled::{IVec, Tree};

use super::apply::Batch;
use super::chunk::Chunk;
use super::fault::Fault;
use super::keys;

/// Most bytes of old values in memory; those beyond wait on disk.
const MAX_HELD: usize = 32 << 20;

/// What an entry costs beside its bytes, about.
const ENTRY: usize = 96;

/// What a snapshot is read for. Of each purpose there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For another replica.
    Replica,
    /// For an operator, who may be slow.
    Backup,
}

/// What an open snapshot knows of the past.
pub(super) struct Undo {
    /// Tells the snapshots of this store apart, in the tree too.
    id: u64,
    purpose: Purpose,
    /// What snapshots before this one have left in the tree is nobody's, and goes as this one passes.
    oldest: u64,
    /// Dead when the reader is gone: then nothing is kept any more.
    reader: Weak<()>,
    /// The last key that was read.
    cursor: Option<IVec>,
    done: bool,
    /// Old values by key; `None`: there was no such row.
    held: BTreeMap<Vec<u8>, Option<IVec>>,
    held_bytes: usize,
    max_held: usize,
    spill: Tree,
    spilled: bool,
}

/// A row as it was: its key, and its value if it was there.
type Past = Result<(IVec, Option<IVec>), Fault>;

impl Undo {
    /// A snapshot of this moment. It lives as long as the token that comes with it. `oldest`: of those that are open, it included.
    pub(super) fn begin((id, purpose): (u64, Purpose), oldest: u64, spill: Tree) -> (Self, Arc<()>) {
        let token = Arc::new(());
        let undo = Undo {
            id,
            purpose,
            oldest,
            reader: Arc::downgrade(&token),
            cursor: None,
            done: false,
            held: BTreeMap::new(),
            held_bytes: 0,
            max_held: MAX_HELD,
            // What an earlier snapshot left there goes as this one passes.
            spilled: !spill.is_empty(),
            spill,
        };
        (undo, token)
    }

    /// Which snapshot it is.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What it is read for.
    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether somebody may still ask for rows.
    pub(super) fn is_wanted(&self) -> bool {
        self.reader.strong_count() > 0
    }

    /// Keeps what `batch` is about to replace in `tree`.
    pub(super) fn keep(&mut self, tree: &Tree, batch: &Batch) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        for key in batch.keys() {
            let passed = self.cursor.as_ref().is_some_and(|cursor| key.as_slice() <= cursor.as_ref());
            if passed || self.held.contains_key(key) {
                continue;
            }
            if self.spilled && self.spill.contains_key(self.spill_key(key))? {
                continue;
            }
            let old = tree.get(key)?;
            let size = key.len() + old.as_ref().map_or(0, |old| old.len()) + ENTRY;
            if self.held_bytes + size <= self.max_held {
                self.held_bytes += size;
                self.held.insert(key.clone(), old);
            } else {
                let value = old.map_or_else(Vec::new, |old| [&[1], old.as_ref()].concat());
                self.spill.insert(self.spill_key(key), value)?;
                self.spilled = true;
            }
        }
        Ok(())
    }

    /// The next rows as they were; `None` after the last.
    pub(super) fn next(&mut self, tree: &Tree) -> Result<Option<Bytes>, Fault> {
        if self.done {
            return Ok(None);
        }
        let mut chunk = Chunk::default();
        let mut last = None;
        let mut all = true;
        for row in self.past(tree) {
            let (key, value) = row?;
            if let Some(value) = value.filter(|_| !keys::is_local(&key))
                && !chunk.push(&key, &value)?
            {
                all = false;
                break;
            }
            last = Some(key);
        }
        self.done = all;
        if let Some(last) = last {
            self.pass(last)?;
        }
        Ok(chunk.into_bytes())
    }

    /// The rows after the cursor as they were, those that were not there with `None`.
    fn past<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = Past> + 'a {
        let start = self.cursor.as_ref().map_or(Unbounded, |cursor| Excluded(cursor.as_ref()));
        let now = tree.range::<&[u8], _>((start, Unbounded)).map(|row| {
            let (key, value) = row?;
            Ok((key, Some(value)))
        });
        let held = self.held.range::<[u8], _>((start, Unbounded));
        let held = held.map(|(key, old)| Ok((key.as_slice().into(), old.clone())));
        let first = self
            .cursor
            .as_ref()
            .map_or(Included(self.spill_key(b"")), |cursor| Excluded(self.spill_key(cursor)));
        let end = Excluded((self.id + 1).to_be_bytes().to_vec());
        let spilled = self.spill.range((first, end)).map(|row| {
            let (key, value) = row?;
            let old = value.split_first().map(|(_there, old)| old.into());
            Ok((key.get(8..).unwrap_or_default().into(), old))
        });
        merge(merge(held, spilled), now)
    }

    /// Moves the cursor to `key` and lets go of what lies behind it.
    fn pass(&mut self, key: IVec) -> Result<(), Fault> {
        let ahead = self.held.split_off(key.as_ref());
        let behind = std::mem::replace(&mut self.held, ahead);
        let mut freed = 0;
        for (key, old) in behind.into_iter().chain(self.held.remove_entry(key.as_ref())) {
            freed += key.len() + old.map_or(0, |old| old.len()) + ENTRY;
        }
        self.held_bytes = self.held_bytes.saturating_sub(freed);
        if self.spilled {
            let left = self.spill.range(..self.oldest.to_be_bytes());
            for passed in left.chain(self.spill.range(self.spill_key(b"")..=self.spill_key(&key))) {
                self.spill.remove(passed?.0)?;
            }
        }
        self.cursor = Some(key);
        Ok(())
    }

    fn spill_key(&self, key: &[u8]) -> Vec<u8> {
        [&self.id.to_be_bytes(), key].concat()
    }
}

/// Two orders as one; where both have a key, the row of `over`.
fn merge<'a>(
    over: impl Iterator<Item = Past> + 'a,
    under: impl Iterator<Item = Past> + 'a,
) -> impl Iterator<Item = Past> + 'a {
    let (mut over, mut under) = (over.peekable(), under.peekable());
    std::iter::from_fn(move || match (over.peek(), under.peek()) {
        (Some(Ok((one, _))), Some(Ok((other, _)))) => match one.cmp(other) {
            Ordering::Less => over.next(),
            Ordering::Greater => under.next(),
            Ordering::Equal => {
                under.next();
                over.next()
            }
        },
        (Some(Err(_)), _) | (_, None) => over.next(),
        (None, _) | (_, Some(Err(_))) => under.next(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::chunk;
    use super::*;

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    fn database() -> sled::Db {
        sled::Config::new().temporary(true).flush_every_ms(None).open().unwrap()
    }

    fn take_in(rows: &mut Map, chunk: &[u8]) {
        for (key, value) in chunk::rows(chunk).unwrap() {
            assert!(rows.insert(key.to_vec(), value.to_vec()).is_none(), "a row came twice");
        }
    }

    fn all(tree: &Tree) -> Map {
        tree.iter().map(|row| row.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn batch_of(writes: Vec<(u8, Option<usize>)>) -> Batch {
        let value = |size: usize| IVec::from(vec![9; size * 20_000]);
        writes.into_iter().map(|(key, size)| (vec![key], size.map(value))).collect()
    }

    fn writes() -> impl Strategy<Value = Vec<(u8, Option<usize>)>> {
        prop::collection::vec((any::<u8>(), prop::option::of(0..10_usize)), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_snapshot_is_what_was_there_when_it_began(
            first in prop::collection::vec(writes(), 1..4),
            meanwhile in prop::collection::vec(writes(), 0..12),
            max_held in prop_oneof![Just(0), Just(200_000), Just(MAX_HELD)],
        ) {
            let db = database();
            let (tree, spill) = (db.open_tree("rows").unwrap(), db.open_tree("undo").unwrap());
            let mut tokens = Vec::new();
            let apply = |open: &mut Vec<(Undo, Map, Map)>, writes| {
                let batch = batch_of(writes);
                open.iter_mut().try_for_each(|(undo, ..)| undo.keep(&tree, &batch)).unwrap();
                for (key, value) in batch {
                    match value {
                        Some(value) => tree.insert(key, value).unwrap(),
                        None => tree.remove(key).unwrap(),
                    };
                }
            };
            first.into_iter().for_each(|writes| apply(&mut Vec::new(), writes));
            let expected = all(&tree);
            let (undo, _token) = Undo::begin((7, Purpose::Replica), 7, spill.clone());
            let mut open = vec![(Undo { max_held, ..undo }, Map::new(), expected)];
            for writes in meanwhile {
                apply(&mut open, writes);
                for (undo, found, _) in &mut open {
                    if let Some(chunk) = undo.next(&tree).unwrap() {
                        take_in(found, &chunk);
                    }
                }
                // Another one begins while the first is read.
                if open.len() < 2 {
                    let (undo, token) = Undo::begin((8, Purpose::Backup), 7, spill.clone());
                    open.push((Undo { max_held, ..undo }, Map::new(), all(&tree)));
                    tokens.push(token);
                }
            }
            for (mut undo, mut found, expected) in open {
                while let Some(chunk) = undo.next(&tree).unwrap() {
                    take_in(&mut found, &chunk);
                }
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_was_passed_costs_nothing() {
        let db = database();
        let (tree, spill) = (db.open_tree("rows").unwrap(), db.open_tree("undo").unwrap());
        tree.insert(b"a", b"1").unwrap();
        let (undo, _token) = Undo::begin((7, Purpose::Replica), 7, spill.clone());
        let mut undo = Undo { max_held: ENTRY + 2, ..undo };
        let both = Batch::from([(b"a".to_vec(), None), (b"b".to_vec(), Some(b"2".into()))]);
        undo.keep(&tree, &both).unwrap();
        assert_eq!((undo.held.len(), spill.len()), (1, 1));
        undo.next(&tree).unwrap().unwrap();
        assert_eq!((undo.held.len(), undo.held_bytes, spill.len()), (0, 0, 0));
    }

    #[test]
    fn what_an_earlier_snapshot_left_is_not_read_and_goes() {
        let db = database();
        let (tree, spill) = (db.open_tree("rows").unwrap(), db.open_tree("undo").unwrap());
        tree.insert(b"a", b"1").unwrap();
        let (left, _token) = Undo::begin((7, Purpose::Replica), 7, spill.clone());
        let batch = Batch::from([(b"a".to_vec(), Some(b"2".into()))]);
        Undo { max_held: 0, ..left }.keep(&tree, &batch).unwrap();
        tree.insert(b"a", b"2").unwrap();
        let (mut undo, _token) = Undo::begin((8, Purpose::Replica), 8, spill.clone());
        let chunk = undo.next(&tree).unwrap().unwrap();
        assert_eq!(chunk::rows(&chunk).unwrap(), [(&b"a"[..], &b"2"[..])]);
        assert!(spill.is_empty());
    }

    #[test]
    fn a_reader_that_is_gone_wants_nothing_kept() {
        let db = database();
        let (undo, token) = Undo::begin((7, Purpose::Replica), 7, db.open_tree("undo").unwrap());
        assert!(undo.is_wanted());
        drop(token);
        assert!(!undo.is_wanted());
    }
}
