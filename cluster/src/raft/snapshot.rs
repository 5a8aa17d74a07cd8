//! PURE: a snapshot of the route table as bytes, for the file and for a newcomer.
//!
//! A version byte, then frames of length (big-endian u32) and value: what the snapshot covers, the nodes, the last answer to each, then
//! the routes in the order of their binds, in parts; a part without routes is the end. Tables with the same
//! content have the same bytes.

use std::io::{self, Read, Write};

use althing_proto::jid::FullJid;
use openraft::alias::SnapshotMetaOf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::RouteGroup;
use crate::routes::{Route, RouteTable};
use crate::wire;

/// Version of the layout.
const VERSION: u8 = 1;

/// Routes of one part. With addresses of the longest kind it stays far below [`wire::MAX_VALUE`].
const PART: usize = 1_024;

/// What a snapshot covers: the last entry applied, and the membership.
pub type RouteSnapshotMeta = SnapshotMetaOf<RouteGroup>;

/// Writes a snapshot.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, meta: &RouteSnapshotMeta, table: &RouteTable) -> io::Result<()> {
    out.write_all(&[VERSION])?;
    frame(out, meta)?;
    frame(out, table.nodes())?;
    frame(out, table.answered())?;
    let mut routes: Vec<_> = table.routes().collect();
    routes.sort_unstable_by_key(|(_, route)| route.index);
    for part in routes.chunks(PART) {
        frame(out, &part)?;
    }
    frame(out, &[(); 0].as_slice())
}

/// Reads a snapshot that takes all of `input`.
///
/// # Errors
/// Those of `input`, and [`io::ErrorKind::InvalidData`] for bytes that are not one.
pub fn read(input: &mut impl Read) -> io::Result<(RouteSnapshotMeta, RouteTable)> {
    let mut version = [0];
    input.read_exact(&mut version)?;
    if version != [VERSION] {
        return Err(invalid(format!("its version is {}, this release reads {VERSION}", version[0])));
    }
    let meta = unframe(input)?;
    let nodes = unframe(input)?;
    let answered = unframe(input)?;
    let mut routes: Vec<(FullJid, Route)> = Vec::new();
    loop {
        let part: Vec<_> = unframe(input)?;
        if part.is_empty() {
            break;
        }
        routes.extend(part);
    }
    if input.read(&mut version)? > 0 {
        return Err(invalid("bytes are left over".to_owned()));
    }
    let table = RouteTable::restore(nodes, answered, routes)
        .map_err(|jid| invalid(format!("{jid} is there twice")))?;
    Ok((meta, table))
}

fn frame<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    let bytes = wire::encode(value).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&bytes)
}

fn unframe<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length as usize > wire::MAX_VALUE {
        return Err(invalid(format!("a part has {length} bytes")));
    }
    // Grows with what is there: a length that lies costs nothing.
    let mut bytes = Vec::new();
    input.by_ref().take(length.into()).read_to_end(&mut bytes)?;
    wire::decode(&bytes).map_err(|error| invalid(error.to_string()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no snapshot of the routes: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_id::{Incarnation, NodeId};
    use crate::routes::command::{Bind, NodeUp};
    use crate::routes::{BindIndex, RouteCommand};

    fn filled(sessions: usize) -> RouteTable {
        let (node, incarnation) = (NodeId::new(1), Incarnation(1));
        let mut table = RouteTable::default();
        table.apply(BindIndex(0), NodeUp { node, incarnation }.into());
        for at in 1..=sessions {
            let jid = FullJid::new(&format!("u{}@d/{at}", at % 99)).unwrap();
            let bind: RouteCommand = Bind { jid, node, incarnation }.into();
            table.apply(BindIndex(at as u64), bind);
        }
        table
    }

    fn bytes_of(table: &RouteTable) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, &RouteSnapshotMeta::default(), table).unwrap();
        bytes
    }

    #[test]
    fn a_table_comes_back_with_the_same_bytes() {
        let table = filled(2 * PART + 1);
        let bytes = bytes_of(&table);
        let (meta, restored) = read(&mut bytes.as_slice()).unwrap();
        assert_eq!(meta, RouteSnapshotMeta::default());
        assert_eq!(restored.sessions(), table.sessions());
        assert!(table.routes().all(|(jid, route)| restored.locate(jid) == Some(*route)));
        assert_eq!(bytes_of(&restored), bytes);
    }

    #[test]
    fn damage_is_seen() {
        let bytes = bytes_of(&filled(3));
        for cut in 0..bytes.len() {
            assert!(read(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&mut [bytes.as_slice(), &[0]].concat().as_slice()).is_err());
        let mut other = bytes;
        other[0] += 1;
        assert!(read(&mut other.as_slice()).is_err());
    }
}
