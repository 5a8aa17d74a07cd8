//! Places for messages that are being kept: how many a node keeps at the same time, and how many of them one sender.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use althing_proto::jid::Jid;

use crate::node::NodeContext;

/// Most messages of one node that are being kept at the same time. With more, whoever sends them waits.
const MAX_KEEPS: usize = 1_024;

/// Most of those that are of one sender: others find places whatever becomes of these.
const MAX_KEEPS_OF_ONE: usize = MAX_KEEPS / 4;

/// The senders are dealt out to so many shares of that size.
const SHARES: usize = 64;

/// The place of a message among those that are being kept, and among those of its sender.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_one: OwnedSemaphorePermit,
}

/// The places of messages that are being kept.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    shares: [Arc<Semaphore>; SHARES],
    hashes: RandomState,
}

impl Default for Places {
    fn default() -> Self {
        let shares = std::array::from_fn(|_| Arc::new(Semaphore::new(MAX_KEEPS_OF_ONE)));
        Places { all: Arc::new(Semaphore::new(MAX_KEEPS)), shares, hashes: RandomState::new() }
    }
}

impl Places {
    /// Those of a sender, whichever of its sessions it is.
    fn of(&self, sender: Option<&Jid>) -> Arc<Semaphore> {
        let hash = self.hashes.hash_one(sender.map(|jid| (jid.node(), jid.domain())));
        let place = usize::try_from(hash % SHARES as u64).unwrap_or(0);
        self.shares.get(place).map_or_else(|| Arc::clone(&self.all), Arc::clone)
    }

    /// A place, if there is one at once.
    pub(super) fn free(&self, sender: Option<&Jid>) -> Option<Place> {
        let of_one = self.of(sender).try_acquire_owned().ok()?;
        Some(Place { _of_one: of_one, _of_all: Arc::clone(&self.all).try_acquire_owned().ok()? })
    }

    /// A place, when there is one: whoever waits longest gets the next one. `None`: never, for nobody closes what gives them.
    async fn next(&self, sender: Option<&Jid>) -> Option<Place> {
        let of_one = self.of(sender).acquire_owned().await.ok()?;
        Some(Place { _of_one: of_one, _of_all: Arc::clone(&self.all).acquire_owned().await.ok()? })
    }
}

/// Waits until one more message of that sender may be kept, and gives its place. `None`: never.
pub async fn room(node: &NodeContext, sender: Option<&Jid>) -> Option<Place> {
    node.waiting.keeps.next(sender).await
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_place_that_becomes_free_is_given_to_one_of_those_who_wait() {
        let node = NodeContext::for_tests();
        let many = u32::try_from(MAX_KEEPS).unwrap();
        let mut taken = Arc::clone(&node.waiting.keeps.all).acquire_many_owned(many).await.unwrap();
        let (first, second) = (room(&node, None), room(&node, None));
        tokio::pin!(first, second);
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(taken.split(1));
        let place = first.await;
        assert!(place.is_some());
        assert!(
            second.as_mut().now_or_never().is_none(),
            "the place is the first one's until its message is kept"
        );
        drop(place);
        assert!(second.await.is_some());
    }

    /// Whoever writes faster than the store keeps waits for itself.
    #[tokio::test]
    async fn a_sender_leaves_places_to_others() {
        let node = NodeContext::for_tests();
        let [phone, desk] = ["a@localhost/phone", "a@localhost/desk"].map(|jid| Jid::new(jid).unwrap());
        let places = &node.waiting.keeps;
        let mut taken: Vec<_> =
            std::iter::from_fn(|| places.free(Some(&phone))).take(MAX_KEEPS + 1).collect();
        assert_eq!(taken.len(), MAX_KEEPS_OF_ONE);
        let next = room(&node, Some(&desk));
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none(), "it is the same sender");
        let others = (0..MAX_KEEPS).map(|number| Jid::new(&format!("b{number}@localhost/x")).unwrap());
        let found = others.filter(|other| places.free(Some(other)).is_some()).count();
        assert!(found > MAX_KEEPS * 9 / 10, "{found}");
        taken.pop();
        assert!(next.await.is_some());
    }
}
