//! How a document gets into the store: in parts that each fit into the log, the last of which makes it the one in
//! force. Shared by the node that writes its own rows and by the one that writes through the store group.

use std::hash::{BuildHasher as _, RandomState};

use althing_proto::jid::BareJid;

use super::super::StorageError;
use super::super::profile::{NewDocument, check_document};
use super::command::{Command, PutPart, SealDocument};
use super::reply::Reply;

/// Most bytes of one part: with its addresses a command stays below what a batch of the log takes (64 KiB).
const PART_BYTES: usize = 48 << 10;

/// How often an upload is begun anew when another one of the same document has ended it.
const TRIES: usize = 3;

/// A document on its way.
pub(in super::super) struct Upload {
    user: BareJid,
    name: String,
    new: NewDocument,
    id: u64,
    part: usize,
    tries: usize,
}

impl Upload {
    /// A document that is about to be stored.
    pub(in super::super) fn new(user: &BareJid, name: &str, new: NewDocument) -> Result<Self, StorageError> {
        check_document(name, &new)?;
        Ok(Upload { user: user.clone(), name: name.to_owned(), new, id: fresh(), part: 0, tries: 1 })
    }

    /// Writes one part after the other by `write`; the revision of the document.
    pub(in super::super) async fn through<W>(
        mut self,
        write: impl Fn(Command) -> W,
    ) -> Result<u64, StorageError>
    where
        W: Future<Output = Result<Reply, StorageError>>,
    {
        loop {
            let reply = write(self.command()).await?;
            if let Some(revision) = self.replied(reply)? {
                return Ok(revision);
            }
        }
    }

    /// The next command.
    fn command(&self) -> Command {
        let (user, document, upload) = (self.user.clone(), self.name.clone(), self.id);
        let start = self.part * PART_BYTES;
        let left = self.new.content.slice(start.min(self.new.content.len())..);
        let part = u32::try_from(self.part).unwrap_or(u32::MAX);
        if left.len() > PART_BYTES {
            let bytes = left.slice(..PART_BYTES);
            return Command::PutPart(PutPart { user, document, upload, part, bytes });
        }
        let NewDocument { note, words, shown, .. } = self.new.clone();
        let seal = SealDocument { user, document, upload, parts: part, last: left, note, words, shown };
        Command::SealDocument(seal)
    }

    /// What the reply to that command says: the revision when the document is in force, `None` while it goes on.
    fn replied(&mut self, reply: Reply) -> Result<Option<u64>, StorageError> {
        match reply {
            Reply::Revision(revision) => return Ok(Some(revision)),
            Reply::Done(true) => self.part += 1,
            Reply::Done(false) if self.tries >= TRIES => return Err(StorageError::Busy),
            Reply::Done(false) => {
                self.tries += 1;
                self.part = 0;
                self.id = fresh();
            }
            other => drop(other.done()?),
        }
        Ok(None)
    }
}

/// A number that no other upload has. std seeds each state at random: no crate is needed.
fn fresh() -> u64 {
    RandomState::new().hash_one(0_u8)
}
