//! Accept loops: limits are checked before anything is allocated for a connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::auth::rate::network;
use crate::metrics::{Listener, Rejection};
use crate::node::NodeContext;
use crate::stream::{component, connection};
use crate::turns::Turns;

/// How long to wait after a failed accept: descriptors may have run out, and spinning frees none.
const BREATH: Duration = Duration::from_millis(100);

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1_024;

/// How many connections of a listener are on their way to their arbiter. More wait to be accepted: each that is taken
/// costs its arbiter memory and time before it says anything.
const HANDED_OVER: usize = 16;

/// The open connections of a node, counted for its limits.
#[derive(Debug, Default)]
pub struct Connections {
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a connection in, unless a limit forbids it. Loopback addresses share no limit: proxies on the
    /// same machine connect from them.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        most: usize,
        most_by_address: usize,
    ) -> Result<Admitted, Rejection> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= most {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::Limit);
        }
        let total = Total(Arc::clone(self));
        let by_address = self.admit_address(peer, most_by_address)?;
        Ok(Admitted { _total: total, _by_address: by_address })
    }

    /// Counts a connection among those of its address only: one that came through a proxy has been counted in.
    ///
    /// # Errors
    /// The limit is reached.
    pub fn admit_address(self: &Arc<Self>, peer: IpAddr, most: usize) -> Result<ByAddress, Rejection> {
        // Before the address is cut to its network: that of `::1` is no loopback address any more.
        let is_loopback = peer.to_canonical().is_loopback();
        let peer = network(peer);
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(peer).or_insert(0);
        if *count >= most && !is_loopback {
            return Err(Rejection::PerIpLimit);
        }
        *count += 1;
        drop(by_address);
        Ok(ByAddress { connections: Arc::clone(self), peer })
    }
}

/// A connection that was counted in; counts itself out.
#[derive(Debug)]
pub struct Admitted {
    _total: Total,
    _by_address: ByAddress,
}

#[derive(Debug)]
struct Total(Arc<Connections>);

impl Drop for Total {
    fn drop(&mut self) {
        self.0.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place among those of its address; given back when dropped.
#[derive(Debug)]
pub struct ByAddress {
    connections: Arc<Connections>,
    peer: IpAddr,
}

impl Drop for ByAddress {
    fn drop(&mut self) {
        let mut by_address = self.connections.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.peer);
            }
        }
    }
}

/// The arbiters that carry connections, each with how many it carries.
#[derive(Debug, Clone)]
pub struct Workers(Vec<(ArbiterHandle, Arc<AtomicUsize>)>);

impl Workers {
    /// Spreads connections over these arbiters.
    #[must_use]
    pub fn new(arbiters: impl IntoIterator<Item = ArbiterHandle>) -> Self {
        Workers(arbiters.into_iter().map(|arbiter| (arbiter, Arc::default())).collect())
    }

    /// Runs something on the arbiter with the fewest connections; `false` where it will not.
    pub fn spawn(&self, run: impl FnOnce() + Send + 'static) -> bool {
        self.least().is_some_and(|(arbiter, _)| arbiter.spawn_fn(run))
    }

    /// The arbiter with the fewest connections.
    fn least(&self) -> Option<&(ArbiterHandle, Arc<AtomicUsize>)> {
        self.0.iter().min_by_key(|(_, carried)| carried.load(Ordering::Relaxed))
    }
}

/// Binds a listening socket.
///
/// # Errors
/// The system's, for example that the address is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // A restarted node takes its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the task is dropped.
pub async fn accept(node: Arc<NodeContext>, listener: TcpListener, kind: Listener, workers: Workers) {
    let places = Arc::new(Semaphore::new(HANDED_OVER));
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let peer = peer.ip();
                match admit(&node, peer, kind) {
                    Ok(admitted) => {
                        // Nobody closes it.
                        let place = Arc::clone(&places).acquire_owned().await.ok();
                        hand_over(&node, (tcp, place), peer, admitted, kind, &workers);
                    }
                    // Closed without a word: a word would cost what the limit saves.
                    Err(rejection) => node.metrics.connection_rejected(rejection),
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Counts a connection in by the limits of its listener.
fn admit(node: &NodeContext, peer: IpAddr, kind: Listener) -> Result<Admitted, Rejection> {
    match kind {
        Listener::C2s | Listener::C2sTls | Listener::Web | Listener::WebTls => {
            let config = node.config();
            let limits = &config.limits;
            // A proxy's own address says nothing; its clients are counted when it has told who they are.
            let proxy = kind == Listener::Web && config.web.trusts(peer);
            let most_by_address = if proxy { usize::MAX } else { limits.connections_per_ip };
            node.connections.admit(peer, limits.connections, most_by_address)
        }
        Listener::Component | Listener::ComponentTls => {
            let most = node.config().components.connections;
            node.components.connections.admit(peer, most, most)
        }
    }
}

/// What a connection holds while it is served: counted back however it ends.
struct Carried {
    node: Arc<NodeContext>,
    kind: Listener,
    by_arbiter: Arc<AtomicUsize>,
    _admitted: Admitted,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.by_arbiter.fetch_sub(1, Ordering::Relaxed);
        self.node.metrics.connection_closed(self.kind);
    }
}

/// Moves the socket to an arbiter's reactor and serves it there.
fn hand_over(
    node: &Arc<NodeContext>,
    (tcp, place): (TcpStream, Option<OwnedSemaphorePermit>),
    peer: IpAddr,
    admitted: Admitted,
    kind: Listener,
    workers: &Workers,
) {
    let Some((arbiter, carried)) = workers.least() else { return };
    carried.fetch_add(1, Ordering::Relaxed);
    node.metrics.connection_opened(kind);
    let carried =
        Carried { node: Arc::clone(node), kind, by_arbiter: Arc::clone(carried), _admitted: admitted };
    let tcp = match tcp.into_std() {
        Ok(tcp) => tcp,
        Err(error) => return warn!(%error, "connection not handed over"),
    };
    let spawned = arbiter.spawn(async move {
        actix_rt::spawn(async move {
            Turns::here().next().await;
            drop(place);
            let tcp = match TcpStream::from_std(tcp) {
                Ok(tcp) => tcp,
                Err(error) => return warn!(%error, "connection not served"),
            };
            let node = Arc::clone(&carried.node);
            // Boxed, so that it takes no memory before its turn.
            match kind {
                Listener::C2s | Listener::C2sTls | Listener::Web | Listener::WebTls => {
                    Box::pin(connection::serve(node, tcp, peer, kind)).await;
                }
                Listener::Component | Listener::ComponentTls => {
                    Box::pin(component::serve(node, tcp, peer, kind)).await;
                }
            }
            drop(carried);
        });
    });
    if !spawned {
        warn!("an arbiter has stopped: a connection is dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_are_given_back() {
        let connections = Arc::new(Connections::default());
        let (a, b): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let first = connections.admit(a, 3, 2).unwrap();
        let _second = connections.admit(a, 3, 2).unwrap();
        assert_eq!(connections.admit(a, 3, 2).unwrap_err(), Rejection::PerIpLimit);
        let _third = connections.admit(b, 3, 2).unwrap();
        assert_eq!(connections.admit(b, 3, 2).unwrap_err(), Rejection::Limit);
        drop(first);
        assert!(connections.admit(a, 3, 2).is_ok());
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let loopback = loopback.parse().unwrap();
            let places: Vec<_> = (0..3).map(|_| connections.admit_address(loopback, 2)).collect();
            assert!(places.iter().all(Result::is_ok), "{loopback}: {places:?}");
        }
    }
}
