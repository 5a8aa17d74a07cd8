//! The last changes of each roster, a row each: what a client has missed (RFC 6121 §2.6).

use althing_proto::jid::BareJid;

use super::super::super::roster_rules;
use super::super::super::{ItemChange, RosterNews};
use super::super::fault::Fault;
use super::super::keys;
use super::{Rows, decode};

impl Rows {
    /// What is new in the roster of `owner` since `version`, see [`super::super::super::Rosters::since`].
    pub(in super::super) fn roster_since(
        &self,
        owner: &BareJid,
        version: u64,
        most: u32,
    ) -> Result<RosterNews, Fault> {
        match self.changes_since(owner, version, most)? {
            Some(changes) => Ok(changes),
            None => Ok(RosterNews::Whole(self.roster(owner)?)),
        }
    }

    /// The changes, if the history reaches that far back and they are not too many.
    fn changes_since(&self, owner: &BareJid, version: u64, most: u32) -> Result<Option<RosterNews>, Fault> {
        let _reading = self.batch.read();
        let head = self.roster_head(owner)?;
        if !head.remembers(version) {
            return Ok(None);
        }
        let mut noted = Vec::new();
        let (first, last) =
            (keys::roster_change(owner, version + 1), keys::roster_change(owner, head.version));
        for entry in self.tree.range(first..=last) {
            let (key, value) = entry?;
            let number =
                keys::version(&key).ok_or_else(|| Fault::Row("a change without a version".to_owned()))?;
            noted.push((number, decode::<BareJid>(&key, &value)?));
        }
        let Some(noted) = roster_rules::missed(head, version, noted, most) else { return Ok(None) };
        let mut changes = Vec::with_capacity(noted.len());
        for (version, contact) in noted {
            let item = self.read(&keys::roster_item(owner, &contact))?;
            changes.push(ItemChange::new(version, contact, item));
        }
        Ok(Some(RosterNews::Changes { version: head.version, changes }))
    }
}
