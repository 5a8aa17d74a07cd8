//! The asking side of the admin socket.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::line;
use super::protocol::{ANSWER_BYTES, Answer, Request, SOCKET};

/// How long a node may take to answer; longer than it gives itself.
const PATIENCE: Duration = Duration::from_secs(40);

/// A connection to a running node.
#[derive(Debug)]
pub struct AdminClient {
    stream: BufReader<UnixStream>,
}

impl AdminClient {
    /// Connects to the node whose `node.data_dir` is `dir`; `None` when none runs.
    ///
    /// # Errors
    /// A socket that may not be used.
    pub async fn connect(dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::connect_to(&dir.join(SOCKET)).await
    }

    /// Connects to the socket at `path`; `None` when nobody answers on it.
    ///
    /// # Errors
    /// As [`AdminClient::connect`].
    pub async fn connect_to(path: &Path) -> anyhow::Result<Option<Self>> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(AdminClient { stream: BufReader::new(stream) })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            // No socket can have such a path, so no node runs there.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("the admin socket {} cannot be used; ask as the node's own user", path.display())
            }),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the node says it could not do, in its words; a node that ends meanwhile.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let request = serde_json::to_vec(request)?;
        let answer = timeout(PATIENCE, async {
            line::write(&mut self.stream, request).await?;
            line::read(&mut self.stream, ANSWER_BYTES).await
        });
        let answer = answer.await.context("the node does not answer")?.context("the node does not answer")?;
        let answer = answer.context("the node ended before it answered")?;
        match serde_json::from_slice(&answer).context("the node's answer is of another release")? {
            Answer::Failed { reason } => bail!("{reason}"),
            answer => Ok(answer),
        }
    }
}
