//! PURE: the row of a message's text: two bytes for the length of the head, the head, the text.

use althing_cluster::wire;
use althing_proto::jid::BareJid;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sled::IVec;

use super::super::fault::Fault;

/// What stands before the text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct BodyHead {
    /// Whether the text is a tombstone.
    pub(super) retracted: bool,
    /// Who has the message, and under which number; also who had it.
    pub(super) owners: Vec<(BareJid, u64)>,
}

/// Most owners of a text: there is a bit for each in the row of those who have let go of it.
pub(super) const MAX_OWNERS: usize = 64;

impl BodyHead {
    /// Splits a row at `key` into head and text.
    pub(super) fn split<'a>(key: &[u8], row: &'a IVec) -> Result<(BodyHead, &'a [u8]), Fault> {
        let damaged = || Fault::Row(format!("the row {:?} has no head", String::from_utf8_lossy(key)));
        let (length, rest) = row.split_first_chunk::<2>().ok_or_else(damaged)?;
        let (head, text) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(damaged)?;
        Ok((wire::decode(head).map_err(|error| Fault::row(key, &error))?, text))
    }

    /// The row of this head with `text`.
    pub(super) fn join(&self, key: &[u8], text: &[u8]) -> Result<IVec, Fault> {
        let head = wire::encode(self).map_err(|error| Fault::row(key, &error))?;
        let length = u16::try_from(head.len())
            .map_err(|_| Fault::Row("the owners of a message are too many for its row".to_owned()))?;
        Ok([&length.to_be_bytes(), head.as_slice(), text].concat().into())
    }

    /// The number under which `user` has it or had it.
    pub(super) fn seq(&self, user: &BareJid) -> Option<u64> {
        self.owners.iter().find(|(owner, _)| owner == user).map(|(_, seq)| *seq)
    }

    /// The bit of `user` among those who have let go, if it has it under `seq`.
    pub(super) fn bit(&self, user: &BareJid, seq: u64) -> Option<u64> {
        let place = self.owners.iter().position(|(owner, number)| owner == user && *number == seq)?;
        u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place))
    }

    /// All bits.
    pub(super) fn all(&self) -> u64 {
        match u32::try_from(self.owners.len()) {
            Ok(count) if count < u64::BITS => (1 << count) - 1,
            _ => u64::MAX,
        }
    }
}

/// A text out of its row.
pub(super) fn text(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_text_come_back_and_damage_is_seen() {
        let user = BareJid::new("j@d").unwrap();
        let head = BodyHead { retracted: true, owners: vec![(user.clone(), 300)] };
        let row = head.join(b"k", b"<m/>").unwrap();
        assert_eq!(row.as_ref(), b"\x00\x09\x01\x01\x03j@d\xfb\x2c\x01<m/>");
        assert_eq!(BodyHead::split(b"k", &row).unwrap(), (head.clone(), &b"<m/>"[..]));
        assert!(BodyHead::split(b"k", &row.subslice(0, 9)).is_err());
        assert!(BodyHead::split(b"k", &row.subslice(0, 1)).is_err());
        assert_eq!((head.seq(&user), head.bit(&user, 300), head.bit(&user, 7)), (Some(300), Some(1), None));
        assert_eq!(head.all(), 1);
    }
}
