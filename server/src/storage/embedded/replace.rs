//! All rows thrown away, and those of a snapshot taken in. A mark on disk says for how long the rows are worth
//! nothing: a crash in between leaves an empty store.

use bytes::Bytes;

use super::apply::Batch;
use super::chunk;
use super::fault::Fault;
use super::keys;
use super::rows::Rows;

/// Most rows that one batch removes.
const REMOVALS_PER_BATCH: usize = 1_000;

/// Begins: all rows go. The number is that of the replacement.
pub(super) fn begin(rows: &Rows) -> Result<u64, Fault> {
    let number = rows.begin_replacing();
    rows.write(&Batch::from([(keys::REPLACING.to_vec(), Some(Default::default()))]))?;
    // Durable before the first row goes: else a crash might leave some of them, and nothing that says so.
    rows.flush()?;
    remove_all(rows)?;
    Ok(number)
}

/// Takes rows of a snapshot in; `false`: the bytes are none.
pub(super) fn take_in(rows: &Rows, number: u64, bytes: &[u8]) -> Result<bool, Fault> {
    check(rows, number)?;
    let Some(taken) = chunk::rows(bytes) else { return Ok(false) };
    if taken.iter().any(|(key, _)| keys::is_local(key)) {
        return Ok(false);
    }
    let batch: Batch = taken.into_iter().map(|(key, value)| (key.to_vec(), Some(value.into()))).collect();
    rows.write(&batch)?;
    Ok(true)
}

/// Ends: the rows are whole, as of `mark`. Durable.
pub(super) fn finish(rows: &Rows, number: u64, mark: &Bytes) -> Result<(), Fault> {
    check(rows, number)?;
    // The rows before the mark that says they are there.
    rows.flush()?;
    let mark = (keys::MARK.to_vec(), Some(mark.as_ref().into()));
    rows.write(&Batch::from([mark, (keys::REPLACING.to_vec(), None)]))?;
    rows.flush()?;
    rows.end_replacing();
    Ok(())
}

/// Empties a store that a crash found being replaced.
pub(super) fn empty_if_unfinished(rows: &Rows) -> Result<(), Fault> {
    if rows.tree().contains_key(keys::REPLACING)? {
        remove_all(rows)?;
        rows.flush()?;
        rows.write(&Batch::from([(keys::REPLACING.to_vec(), None)]))?;
        rows.flush()?;
    }
    Ok(())
}

fn remove_all(rows: &Rows) -> Result<(), Fault> {
    loop {
        let mut batch = Batch::new();
        for key in rows.tree().iter().keys() {
            let key = key?;
            if key != keys::REPLACING {
                batch.insert(key.to_vec(), None);
            }
            if batch.len() >= REMOVALS_PER_BATCH {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        rows.write(&batch)?;
    }
}

/// A writer that was left behind must not write into the rows of a later one.
fn check(rows: &Rows, number: u64) -> Result<(), Fault> {
    if rows.is_replacing() && rows.replacements() == number { Ok(()) } else { Err(Fault::Superseded) }
}
