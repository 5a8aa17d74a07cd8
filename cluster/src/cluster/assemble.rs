//! How the parts are put together at a start.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{ClusterConfig, ClusterError, Doorman, Hooks, LOG_CACHE, Parts, Silent, removed};
use crate::disk::{Gate, Room};
use crate::durable::create_private;
use crate::executor::{LaneService, TaskExecutor};
use crate::lease::Lease;
use crate::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use crate::link::{LinkLimits, LinkTimes, Links};
use crate::members::group::{Group as MemberGroup, GroupName};
use crate::members::voters::Rules;
use crate::members::{Discovery, IdentityFile, Place, Seed, Settle, Settled, keeper};
use crate::node_id::{Incarnation, NodeId};
use crate::raft::fatal;
use crate::raft::group::GroupParts;
use crate::raft::service::{Groups, Late};
use crate::raft::state_machine::{RouteEvents, RouteSpool};
use crate::raft::yielding::yield_when_low;
use crate::raft::{
    GroupHandle, LogOptions, LogStore, RaftGroup, RaftRoutes, RouteStateMachine, StoreMachine, StoreSpool,
};
use crate::store_log::Replica;
use crate::upkeep::granting::Granting;
use crate::upkeep::holder::Holder;
use crate::upkeep::room::DiskWord;

type Assembled =
    (Parts, Arc<RaftRoutes>, RouteEvents, watch::Receiver<String>, watch::Receiver<Option<String>>);

/// Opens what is on disk; blocks, so off the workers.
async fn open<T: Send + 'static>(
    what: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(what).await.map_err(ClusterError::of)?.map_err(ClusterError::of)
}

fn log_options() -> LogOptions {
    LogOptions { cache_bytes: LOG_CACHE, ..LogOptions::default() }
}

/// Opens logs and store, starts the groups and what goes on beside them.
pub(super) async fn assemble(
    config: ClusterConfig,
    listener: TcpListener,
    executor: Arc<dyn TaskExecutor>,
    replica: Arc<dyn Replica>,
    hooks: Hooks,
) -> Result<Assembled, ClusterError> {
    let dirs = [config.dir.clone(), config.dir.join("routes"), config.dir.join("store")];
    let made = dirs.clone();
    open(move || made.iter().try_for_each(|dir| create_private(dir))).await?;
    let [dir, route_dir, store_dir] = dirs;
    let identity = open(move || IdentityFile::open(&dir)).await?;
    let identity = Arc::new(identity);
    let own = identity.clone();
    let incarnation = open(move || own.next_incarnation()).await?;

    let listener = Links::adopt(listener).map_err(ClusterError::of)?;
    let hello = Hello {
        // Known once the node has settled.
        cluster: ClusterId(0),
        node: config.node,
        name: config.name.clone(),
        incarnation,
        min: VERSION_MIN,
        max: VERSION_MAX,
    };
    let late = Arc::new(Late::<Groups>::default());
    let set = (LinkTimes::default(), LinkLimits::default());
    let links = Links::start(hello, config.tls.clone(), set, listener, executor, Some(late.clone()));
    let links = Arc::new(links);
    let lease = Lease::new(config.lease);

    let on_batch = |name: &'static str| {
        let hook = hooks.on_batch.clone();
        Box::new(move |commands: usize, took: Duration| hook(name, commands, took))
    };
    let granting = Arc::new(Late::<Arc<Granting>>::default());
    let word = DiskWord { disk: replica.disk(), low: Arc::default() };
    let gate = |least| Gate::new(word.disk.clone(), least);
    let (routes_gate, store_gate) = (gate(Room::Routes), gate(Room::Low));
    let mut machine = open({
        let dir = route_dir.clone();
        move || RouteStateMachine::open(&dir)
    })
    .await?;
    machine.set_gate(routes_gate.clone());
    let (table, events) = (machine.routes(), machine.events());
    let (route_group, route_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: incarnation,
        dir: route_dir.clone(),
        times: config.groups,
        log: open({
            let votes = routes_gate.clone();
            move || LogStore::open_behind(&route_dir, log_options(), votes)
        })
        .await?,
        machine,
        applied: table.watch(),
        spool: RouteSpool,
        members: granting.clone(),
        on_batch: on_batch("routes"),
        gate: routes_gate,
    })
    .await
    .map_err(ClusterError::of)?;
    let machine = StoreMachine::open(replica.clone(), &store_dir).await.map_err(ClusterError::of)?;
    let (store_group, store_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: incarnation,
        dir: store_dir.clone(),
        times: config.groups,
        log: open({
            // What the group has let in is written, and its votes.
            let votes = gate(Room::Routes);
            move || LogStore::open_behind(&store_dir, log_options(), votes)
        })
        .await?,
        applied: machine.applied(),
        machine,
        spool: StoreSpool(replica),
        members: Arc::new(Silent),
        on_batch: on_batch("store"),
        gate: store_gate,
    })
    .await
    .map_err(ClusterError::of)?;
    let parts = Parts {
        links: links.clone(),
        table: table.clone(),
        route_group,
        store_group,
        lease,
        leaving: watch::Sender::new(false),
        low: word.low.clone(),
    };
    let (waiting, failure) =
        background(&config, &parts, (word, identity), incarnation, hooks.on_down, &granting, |doorman| {
            late.set(Groups { routes: route_service, store: store_service, members: doorman });
        });
    let (proposer, barrier) = (parts.route_group.proposer.clone(), parts.route_group.barrier.clone());
    let routes = Arc::new(RaftRoutes::new(links, table, proposer, barrier));
    Ok((parts, routes, events, waiting, failure))
}

/// Starts what goes on beside: settling, leases, voters.
fn background(
    config: &ClusterConfig,
    parts: &Parts,
    (disk, identity): (DiskWord, Arc<IdentityFile>),
    incarnation: Incarnation,
    on_down: Box<dyn Fn(NodeId) + Send + Sync>,
    granting: &Late<Arc<Granting>>,
    open_door: impl FnOnce(Arc<dyn LaneService>),
) -> (watch::Receiver<String>, watch::Receiver<Option<String>>) {
    let Parts { links, table, route_group, store_group, lease, leaving, .. } = parts.clone();
    tokio::spawn(yield_when_low(route_group.clone(), config.node, disk.clone()));
    tokio::spawn(yield_when_low(store_group.clone(), config.node, disk.clone()));
    let groups: Vec<Arc<dyn MemberGroup>> = vec![
        Arc::new(RaftGroup::new(route_group.raft.clone(), GroupName::Routes)),
        Arc::new(RaftGroup::new(store_group.raft.clone(), GroupName::Store)),
    ];
    let removed = removed::RemovedNodes { table: table.clone(), proposer: route_group.proposer.clone() };
    open_door(Arc::new(Doorman(Discovery {
        node: config.node,
        name: config.name.clone(),
        incarnation,
        identity: identity.clone(),
        groups: groups.clone(),
        removed: Arc::new(removed),
        silence: config.lease.down,
    })));
    let grants =
        Arc::new(Granting::new(route_group.clone(), table.clone(), links.clone(), config.lease, on_down));
    granting.set(grants.clone());

    let known = route_group.metrics();
    let known = known.membership_config.nodes().filter(|(node, _)| **node != config.node);
    let known = known.map(|(_, member)| Seed { name: member.name.clone(), address: member.address.clone() });
    let status = watch::Sender::new("waits for the cluster".to_owned());
    let (waiting, failed) = (status.subscribe(), watch::Sender::new(None));
    let failure = failed.subscribe();
    let stopped = (fatal::stopped(route_group.raft.clone()), fatal::stopped(store_group.raft.clone()));
    let failing = failed.clone();
    tokio::spawn(async move {
        let (routes, store) = stopped;
        let error = tokio::select! { why = routes => why, why = store => why };
        tracing::error!(%error, "this node can take part no longer");
        failing.send_replace(Some(error));
    });
    let settle = Settle {
        own: Place { node: config.node, name: config.name.clone(), address: config.address.clone() },
        incarnation,
        initial: config.initial.clone(),
        known: known.collect(),
        groups: groups.clone(),
        identity: identity.clone(),
        asker: links.clone(),
        fresh: config.fresh,
        status,
    };
    let mut applied = table.watch();
    tokio::spawn({
        let links = links.clone();
        async move {
            loop {
                links.set_applied(*applied.borrow_and_update());
                if applied.changed().await.is_err() {
                    return;
                }
            }
        }
    });
    let holder =
        Holder { routes: route_group, table, links, lease, granting: grants.clone(), identity, disk };
    tokio::spawn(async move {
        let settled = match settle.run().await {
            Ok(settled) => settled,
            Err(error) => {
                tracing::error!(%error, "this node cannot take part");
                failed.send_replace(Some(error.to_string()));
                return;
            }
        };
        for group in groups {
            tokio::spawn(keeper::keep(group, Rules::default()));
        }
        tokio::spawn(grants.run());
        let mut leaving = leaving.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = holder.run(incarnation) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        });
        if let Settled::Started(cluster) = settled
            && let Err(error) = settle.announce(cluster).await
        {
            tracing::error!(%error, "the cluster no longer wants this node");
            failed.send_replace(Some(error.to_string()));
        }
    });
    (waiting, failure)
}
