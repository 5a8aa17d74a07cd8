//! What a replica answers to other nodes. A node that holds none refuses: it never passes a request on, so no
//! request can go in circles.

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::super::StorageError;
use super::super::embedded::command::Command;
use super::super::embedded::query::Query;
use super::super::embedded::reply::Reply;
use super::{READ_PATIENCE, Replicated, SERVING_DEADLINE, Tries};

impl Replicated {
    /// Answers a read of another node, from this node's rows.
    ///
    /// # Errors
    /// Why not, in words for the log of the other node. It asks another replica.
    pub async fn answer_read(&self, query: Bytes) -> Result<Bytes, String> {
        self.check_open().map_err(text)?;
        let query = Query::decode(&query).map_err(|error| format!("the query cannot be read: {error}"))?;
        let rows = self.replica().ok_or("the node holds no replica of the store")?;
        let deadline = Instant::now() + READ_PATIENCE;
        let answer = timeout_at(deadline, self.read_here(rows, &query));
        let answer = answer.await.map_err(|_| "the store did not answer in time")?.map_err(text)?;
        answer.encode().map_err(|error| format!("the answer to {} is too large: {error}", query.name()))
    }

    /// Makes a change that another node asks for.
    ///
    /// # Errors
    /// Nothing was written: why, in words for the log of the other node. It asks another replica. A change of
    /// unknown fate is no error here, but the answer [`Reply::Lost`].
    pub async fn answer_write(&self, command: Bytes) -> Result<Bytes, String> {
        self.check_open().map_err(text)?;
        let command =
            Command::decode(&command).map_err(|error| format!("the change cannot be read: {error}"))?;
        let written = match command.check() {
            Ok(()) => {
                let deadline = Instant::now() + SERVING_DEADLINE;
                self.write_until(command, Tries { deadline, elsewhere: false, again: false }).await
            }
            Err(error) => Err(error),
        };
        let reply = match written {
            Ok(reply) => reply,
            Err(error) => Reply::of(&error).ok_or_else(|| text(error))?,
        };
        // Far below the limit; were it above, the change would have been made all the same.
        reply.encode().or_else(|_| Reply::Lost(()).encode()).map_err(|error| error.to_string())
    }
}

fn text(error: StorageError) -> String {
    error.to_string()
}
