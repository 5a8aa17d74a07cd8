//! The admin socket: a Unix socket in the data directory, for whoever may read that directory's secrets anyway.
//!
//! Bounds: 16 connections, more wait in the kernel; 192 KiB a request, longer ones are answered with an
//! error and the connection ends; 30 s a request; ten minutes of silence end a connection.

use std::fs::{self, Permissions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backend::AdminBackend;
use super::line;
use super::protocol::{Answer, REQUEST_BYTES, Request, SOCKET};

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may be silent, or not take its answer. Somebody may be typing a password.
const IDLE: Duration = Duration::from_secs(600);

/// An open admin socket. Dropping it ends it and removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    accepting: tokio::task::JoinHandle<()>,
}

impl AdminSocket {
    /// Opens the socket in `dir`, with mode 0600, in place of one that a crash has left. Needs the runtime of
    /// an actix system or a tokio `LocalSet`.
    ///
    /// # Errors
    /// A path that is too long for a socket, a node that answers on it, and whatever the system says.
    pub fn open(dir: &Path, backend: Arc<dyn AdminBackend>) -> anyhow::Result<Self> {
        let path = dir.join(SOCKET);
        let listener = bind(&path).with_context(|| format!("the admin socket {}", path.display()))?;
        Ok(AdminSocket { path, accepting: tokio::task::spawn_local(accept(listener, backend)) })
    }

    /// The socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "the file of the admin socket stays");
        }
    }
}

/// Nobody can connect before the permissions are set: the socket listens only then, under a name that nobody
/// asks for, and takes the place of an old one in one step.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another node answers on it; two nodes cannot share node.data_dir");
    }
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let address = SockAddr::unix(&fresh).context("its path is too long: choose a shorter node.data_dir")?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    fs::rename(&fresh, path)?;
    Ok(UnixListener::from_std(socket.into())?)
}

async fn accept(listener: UnixListener, backend: Arc<dyn AdminBackend>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let backend = Arc::clone(&backend);
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = converse(stream, &*backend).await {
                        tracing::debug!(%error, "a connection to the admin socket ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept");
                // Out of descriptors: they do not come back faster by asking.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, backend: &dyn AdminBackend) -> std::io::Result<()> {
    let silent = |_| Error::from(ErrorKind::TimedOut);
    let mut stream = BufReader::new(stream);
    let mut left = Left { backend, backup: None };
    loop {
        let request = match timeout(IDLE, line::read(&mut stream, REQUEST_BYTES)).await.map_err(silent)? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let answer = failed(format!("the request is too long: {error}"));
                timeout(IDLE, line::write(&mut stream, encode(&answer)?)).await.map_err(silent)??;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let answer = match serde_json::from_slice::<Request>(&request) {
            Ok(request) => {
                if let Request::BackupBegin { id } = request {
                    left.backup = Some(id);
                }
                timeout(PATIENCE, backend.answer(request)).await.unwrap_or_else(|_| {
                failed(format!(
                    "not done within {} s; it may still happen. `althing cluster status` says what is missing",
                    PATIENCE.as_secs()
                ))
            })
            }
            Err(error) => failed(format!("no request that this release knows: {error}")),
        };
        timeout(IDLE, line::write(&mut stream, encode(&answer)?)).await.map_err(silent)??;
    }
}

/// Tells when a connection ends that the backup that was begun by it is nobody's any more.
struct Left<'a> {
    backend: &'a dyn AdminBackend,
    backup: Option<u64>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.backup {
            self.backend.backup_left(id);
        }
    }
}

fn failed(reason: String) -> Answer {
    Answer::Failed { reason }
}

fn encode(answer: &Answer) -> std::io::Result<Vec<u8>> {
    serde_json::to_vec(answer).map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::client::AdminClient;

    /// Says which account was asked for, and remembers which backups were left.
    #[derive(Default)]
    struct Echo(parking_lot::Mutex<Vec<u64>>);

    #[async_trait]
    impl AdminBackend for Echo {
        async fn answer(&self, request: Request) -> Answer {
            match request {
                Request::UserDelete { jid } => failed(jid),
                _ => Answer::Done { changed: false },
            }
        }

        fn backup_left(&self, id: u64) {
            self.0.lock().push(id);
        }
    }

    fn with_socket<F: Future<Output = ()>>(work: impl FnOnce(PathBuf, AdminSocket) -> F) {
        let dir = tempfile::tempdir().unwrap();
        actix_rt::System::new().block_on(async {
            let socket = AdminSocket::open(dir.path(), Arc::new(Echo::default())).unwrap();
            work(dir.path().to_owned(), socket).await;
        });
    }

    #[test]
    fn several_connections_ask_and_only_the_owner_may() {
        with_socket(|dir, socket| async move {
            let mode = fs::metadata(socket.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mut one = AdminClient::connect(&dir).await.unwrap().unwrap();
            let mut two = AdminClient::connect(&dir).await.unwrap().unwrap();
            for turn in 0..3 {
                let client = if turn == 1 { &mut two } else { &mut one };
                let error = client.ask(&Request::UserDelete { jid: "a@b".into() }).await.unwrap_err();
                assert_eq!(error.to_string(), "a@b");
                let answer = client.ask(&Request::ClusterStatus).await.unwrap();
                assert_eq!(answer, Answer::Done { changed: false });
            }
        });
    }

    #[test]
    fn a_backup_is_left_when_the_connection_that_began_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        actix_rt::System::new().block_on(async {
            let echo = Arc::new(Echo::default());
            let _socket = AdminSocket::open(dir.path(), Arc::clone(&echo) as Arc<dyn AdminBackend>).unwrap();
            let mut one = AdminClient::connect(dir.path()).await.unwrap().unwrap();
            let mut other = AdminClient::connect(dir.path()).await.unwrap().unwrap();
            one.ask(&Request::BackupBegin { id: 7 }).await.unwrap();
            other.ask(&Request::BackupRows { id: 7 }).await.unwrap();
            drop(other);
            drop(one);
            let left = async {
                while echo.0.lock().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, left).await.expect("it is left");
            assert_eq!(*echo.0.lock(), [7]);
        });
    }

    #[test]
    fn nonsense_is_answered_and_a_long_line_ends_the_connection() {
        with_socket(|_, socket| async move {
            let mut stream = BufReader::new(UnixStream::connect(socket.path()).await.unwrap());
            let mut answer = String::new();
            stream.write_all(b"{\"request\":\"dance.1\"}\n").await.unwrap();
            stream.read_line(&mut answer).await.unwrap();
            assert!(answer.contains("no request that this release knows"), "{answer}");
            // No byte more than the node reads, or the kernel would reset the connection.
            stream.write_all(&vec![b'x'; REQUEST_BYTES]).await.unwrap();
            answer.clear();
            stream.read_line(&mut answer).await.unwrap();
            assert!(answer.contains("the request is too long"), "{answer}");
            assert_eq!(stream.read_line(&mut answer).await.unwrap(), 0);
        });
    }

    #[test]
    fn the_file_of_a_crash_is_replaced_and_a_stopped_node_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        actix_rt::System::new().block_on(async {
            // Dropping the listener leaves its file, as a crash does.
            drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
            assert!(AdminClient::connect(dir.path()).await.unwrap().is_none());
            let socket = AdminSocket::open(dir.path(), Arc::new(Echo::default())).unwrap();
            assert!(AdminClient::connect(dir.path()).await.unwrap().is_some());
            let second = AdminSocket::open(dir.path(), Arc::new(Echo::default())).unwrap_err();
            assert!(format!("{second:#}").contains("another node answers"), "{second:#}");
            drop(socket);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
            assert!(AdminClient::connect(dir.path()).await.unwrap().is_none());
        });
    }

    #[test]
    fn a_long_path_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        actix_rt::System::new().block_on(async {
            let error = format!("{:#}", AdminSocket::open(&deep, Arc::new(Echo::default())).unwrap_err());
            assert!(error.contains("choose a shorter node.data_dir"), "{error}");
        });
    }
}
