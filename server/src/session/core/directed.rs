//! PURE: whom directed presence has told that a session is available.

use std::collections::HashSet;

use althing_proto::jid::Jid;

/// Most targets of directed presence that a session remembers (RFC 6121 §4.6.3 asks to remember them all;
/// a stranger must not fill memory). When full: the presence is refused with `resource-constraint`.
pub const MAX_DIRECTED: usize = 1_000;

/// Most bytes of their addresses.
pub const MAX_DIRECTED_BYTES: usize = 128 * 1024;

/// The targets.
#[derive(Debug, Default)]
pub(super) struct Directed {
    targets: HashSet<Jid>,
    bytes: usize,
}

impl Directed {
    /// Whether all of those are among them, or fit in.
    pub(super) fn has_room_for<'a>(&self, targets: impl IntoIterator<Item = &'a Jid>) -> bool {
        let new = targets.into_iter().filter(|target| !self.targets.contains(*target));
        let (count, bytes) = new.fold((self.targets.len(), self.bytes), |(count, bytes), target| {
            (count + 1, bytes + target.as_str().len())
        });
        // Of those that are there already nobody is refused.
        count == self.targets.len() || (count <= MAX_DIRECTED && bytes <= MAX_DIRECTED_BYTES)
    }

    /// One more, if it fits in.
    pub(super) fn insert(&mut self, target: Jid) {
        if self.has_room_for([&target]) {
            let length = target.as_str().len();
            self.bytes += if self.targets.insert(target) { length } else { 0 };
        }
    }

    /// One less.
    pub(super) fn remove(&mut self, target: &Jid) {
        if self.targets.remove(target) {
            self.bytes -= target.as_str().len();
        }
    }

    /// All of them; none is left.
    pub(super) fn take(&mut self) -> HashSet<Jid> {
        std::mem::take(self).targets
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.targets.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(number: usize, length: usize) -> Jid {
        Jid::new(&format!("room@rooms/{number:0>length$}")).unwrap()
    }

    #[test]
    fn who_is_there_has_room_in_a_full_set() {
        let mut directed = Directed::default();
        (0..MAX_DIRECTED + 5).for_each(|number| directed.insert(jid(number, 4)));
        assert_eq!(directed.iter().count(), MAX_DIRECTED);
        assert!(directed.has_room_for([&jid(0, 4), &jid(MAX_DIRECTED - 1, 4)]));
        assert!(!directed.has_room_for([&jid(0, 4), &jid(MAX_DIRECTED, 4)]));
        directed.remove(&jid(0, 4));
        assert!(directed.has_room_for([&jid(MAX_DIRECTED, 4)]));
        assert!(!directed.has_room_for([&jid(MAX_DIRECTED, 4), &jid(MAX_DIRECTED + 1, 4)]));
    }

    #[test]
    fn long_addresses_are_few() {
        let mut directed = Directed::default();
        (0..MAX_DIRECTED).for_each(|number| directed.insert(jid(number, 1_000)));
        let bytes: usize = directed.iter().map(|target| target.as_str().len()).sum();
        assert!(bytes <= MAX_DIRECTED_BYTES && bytes > MAX_DIRECTED_BYTES - 2_000, "{bytes}");
        assert_eq!(directed.bytes, bytes);
        directed.insert(jid(0, 1_000));
        assert_eq!(directed.bytes, bytes, "it is there already");
        directed.take();
        assert!(directed.bytes == 0 && directed.has_room_for([&jid(0, 1_000)]));
    }
}
