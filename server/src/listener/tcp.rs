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

/// How many connections of all listeners may be on their way to one arbiter while others have fewer: one that stands still
/// does not take every place.
const ON_THEIR_WAY: usize = 8;

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

/// The arbiters that carry connections.
#[derive(Debug, Clone)]
pub struct Workers(Vec<Worker>);

#[derive(Debug, Clone)]
struct Worker {
    arbiter: ArbiterHandle,
    /// How many connections it carries.
    carried: Arc<AtomicUsize>,
    /// How many of them it has not begun to serve.
    on_their_way: Arc<AtomicUsize>,
}

/// One more of something, as long as it lives.
#[derive(Debug)]
struct OneMore(Arc<AtomicUsize>);

impl OneMore {
    fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        OneMore(Arc::clone(count))
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Spreads connections over these arbiters.
    #[must_use]
    pub fn new(arbiters: impl IntoIterator<Item = ArbiterHandle>) -> Self {
        let worker = |arbiter| Worker { arbiter, carried: Arc::default(), on_their_way: Arc::default() };
        Workers(arbiters.into_iter().map(worker).collect())
    }

    /// Runs something on the arbiter with the fewest connections; `false` where it will not.
    pub fn spawn(&self, run: impl FnOnce() + Send + 'static) -> bool {
        self.least().is_some_and(|worker| worker.arbiter.spawn_fn(run))
    }

    /// The arbiter for one more connection.
    fn least(&self) -> Option<&Worker> {
        let counts = |worker: &Worker| {
            let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
            (of(&worker.carried), of(&worker.on_their_way))
        };
        self.0.iter().min_by_key(|worker| preference(counts(worker)))
    }
}

/// PURE: arbiters by how much they have to do; the least has the next connection. One that does not begin to serve those
/// that it has comes behind all others.
fn preference((carried, on_their_way): (usize, usize)) -> (bool, usize) {
    let stands_still = on_their_way >= ON_THEIR_WAY;
    (stands_still, if stands_still { on_their_way } else { carried })
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
    _by_arbiter: OneMore,
    _admitted: Admitted,
}

impl Drop for Carried {
    fn drop(&mut self) {
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
    let Some(worker) = workers.least() else { return };
    let (by_arbiter, on_its_way) = (OneMore::of(&worker.carried), OneMore::of(&worker.on_their_way));
    node.metrics.connection_opened(kind);
    let carried = Carried { node: Arc::clone(node), kind, _by_arbiter: by_arbiter, _admitted: admitted };
    let tcp = match tcp.into_std() {
        Ok(tcp) => tcp,
        Err(error) => return warn!(%error, "connection not handed over"),
    };
    let spawned = worker.arbiter.spawn(async move {
        actix_rt::spawn(async move {
            Turns::here(&carried.node.metrics.turns).next().await;
            // In this order: who gets the place looks who has fewest on their way.
            drop(on_its_way);
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

    /// P11: an arbiter that stands still keeps a few connections waiting, and the others serve whoever comes.
    #[actix_rt::test]
    async fn p11_an_arbiter_that_stands_still_does_not_take_every_place() {
        const CLIENTS: usize = 40;
        let node = Arc::new(NodeContext::for_tests());
        let arbiters = [actix_rt::Arbiter::new(), actix_rt::Arbiter::new()];
        let (go_on, stands) = std::sync::mpsc::channel::<()>();
        arbiters[0].spawn_fn(move || {
            // An error is what it waits for.
            let _ = stands.recv();
        });
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let workers = Workers::new(arbiters.iter().map(actix_rt::Arbiter::handle));
        let accepting = actix_rt::spawn(accept(Arc::clone(&node), listener, Listener::C2s, workers));
        let served = Arc::new(Semaphore::new(0));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let served = Arc::clone(&served);
            clients.push(actix_rt::spawn(async move {
                let mut tcp = TcpStream::connect(address).await.unwrap();
                let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                              to='localhost' version='1.0'>";
                tokio::io::AsyncWriteExt::write_all(&mut tcp, header.as_bytes()).await.unwrap();
                let read = tokio::io::AsyncReadExt::read(&mut tcp, &mut [0; 64]).await;
                if read.is_ok_and(|bytes| bytes > 0) {
                    served.add_permits(1);
                }
                tcp
            }));
        }
        let others = u32::try_from(CLIENTS - ON_THEIR_WAY).unwrap();
        let all = tokio::time::timeout(Duration::from_secs(30), served.acquire_many(others)).await;
        assert!(all.is_ok(), "{} of {CLIENTS} are served", served.available_permits());
        // It goes on, and so do those that were on their way to it.
        drop((all, go_on));
        let all = u32::try_from(CLIENTS).unwrap();
        tokio::time::timeout(Duration::from_secs(30), served.acquire_many(all))
            .await
            .unwrap()
            .unwrap()
            .forget();
        accepting.abort();
        for arbiter in arbiters {
            arbiter.stop();
        }
    }

    #[test]
    fn an_arbiter_that_begins_nothing_comes_last() {
        let preferred = |arbiters: &[(usize, usize)]| {
            (0..arbiters.len()).min_by_key(|index| preference(arbiters[*index])).unwrap()
        };
        assert_eq!(preferred(&[(5, 0), (4, 7), (9, 0)]), 1, "the fewest connections");
        assert_eq!(preferred(&[(500, 0), (8, 8)]), 0, "but for one that stands still");
        assert_eq!(preferred(&[(8, 12), (900, 9)]), 1, "of several that do, the one with fewer");
    }
}
