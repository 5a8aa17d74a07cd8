//! The part of the outbox for messages that have waited in the store: they stay there until they have arrived.
//!
//! On a stream with XEP-0198 they have when they are acknowledged, else when they are written to the socket.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;

use super::{Entry, Full, Left, Outbox, Piece};
use crate::delivery::settles::Settles;
use crate::node::NodeContext;
use crate::storage::messages::{DeviceId, Settle};

/// Takes messages of one session from the store.
pub struct Settler {
    /// The node.
    pub node: Arc<NodeContext>,
    /// Whose they are.
    pub user: BareJid,
    /// The device of the session, where messages wait for each.
    pub device: Option<DeviceId>,
}

impl Settler {
    /// That message has arrived.
    pub fn settle(&self, id: StanzaId) {
        Settles::note(&self.node, Settle { user: self.user.clone(), id, device: self.device });
    }
}

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What of it is on its way to the client.
#[derive(Debug, Default)]
pub(super) struct Waited {
    settler: RefCell<Option<Settler>>,
    /// Which have not arrived.
    unsettled: RefCell<HashSet<StanzaId>>,
    /// Those that are being written, each with the number of bytes that it ends behind.
    writing: RefCell<VecDeque<(usize, StanzaId)>>,
    written: Cell<usize>,
}

impl Waited {
    /// The writer takes bytes, and has so many. Without any, what it had taken before is written or thrown away.
    pub(super) fn take_begins(&self, bytes: usize) {
        if bytes == 0 {
            self.writing.borrow_mut().clear();
            self.written.set(0);
        }
    }

    /// The writer has taken a stanza, which ends there.
    pub(super) fn taken(&self, id: Option<StanzaId>, end: usize) {
        if let Some(id) = id {
            self.writing.borrow_mut().push_back((end, id));
        }
    }

    /// The writer has written so many bytes.
    pub(super) fn written(&self, count: usize) {
        let written = self.written.get() + count;
        self.written.set(written);
        while let Some(id) = self.whole(written) {
            self.arrived(Some(id));
        }
    }

    /// Takes out the next one of which so many bytes are all.
    fn whole(&self, written: usize) -> Option<StanzaId> {
        let mut writing = self.writing.borrow_mut();
        let (end, id) = writing.front().copied()?;
        (end <= written).then(|| {
            writing.pop_front();
            id
        })
    }

    /// A stanza has arrived.
    pub(super) fn arrived(&self, id: Option<StanzaId>) {
        let (Some(id), Some(settler)) = (id, &*self.settler.borrow()) else { return };
        self.unsettled.borrow_mut().remove(&id);
        settler.settle(id);
    }
}

impl Outbox {
    /// Appends a message that has waited in the store under that id.
    ///
    /// # Errors
    /// [`Full`].
    pub fn push_waited(
        &self,
        entry: Entry<'_>,
        bytes: Bytes,
        id: StanzaId,
        settler: impl FnOnce() -> Settler,
    ) -> Result<bool, Full> {
        self.waited.settler.borrow_mut().get_or_insert_with(settler);
        let length = self.framing.length(&bytes);
        let pushed = self.append(
            entry,
            Piece::Stanza(Left { bytes, elsewhere: None, known: None, waited: Some(id) }),
            length,
        )?;
        self.waited.unsettled.borrow_mut().insert(id);
        Ok(pushed)
    }

    /// The stream goes on where another has broken off, with these: some may have waited.
    pub(super) fn go_on_with(&self, stanzas: &[Left]) {
        self.waited.unsettled.borrow_mut().extend(stanzas.iter().filter_map(|stanza| stanza.waited));
    }

    /// By whom messages that have waited are settled, where the stream goes on with some.
    pub fn settle_by(&self, settler: Settler) {
        self.waited.settler.borrow_mut().get_or_insert(settler);
    }

    /// Whether it has ever had messages of the store.
    #[must_use]
    pub fn settles(&self) -> bool {
        self.waited.settler.borrow().is_some()
    }

    /// Whether messages that have waited in the store have not arrived.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        !self.waited.unsettled.borrow().is_empty()
    }

    /// Whether that one is among them.
    #[must_use]
    pub fn is_unsettled(&self, id: StanzaId) -> bool {
        self.waited.unsettled.borrow().contains(&id)
    }

    /// Leaves to others what has waited in the store and is not being written: the session ends.
    pub fn leave_waited(&self) {
        if !self.has_unsettled() {
            return;
        }
        let left = self.change(|queue| {
            queue.extract(|piece| matches!(piece, Piece::Stanza(Left { waited: Some(_), .. })))
        });
        for piece in left {
            if let Piece::Stanza(stanza) = piece {
                self.count(self.bytes.get().saturating_sub(self.framing.length(&stanza.bytes)));
            }
        }
    }
}
