//! What the nodes of a cluster can fill, on behalf of strangers.

use super::{Queue, queue};

/// In the order of the way of a stanza, roughly.
pub(super) const NODES: &[Queue] = &[
    queue("tasks out to a peer, not yet acknowledged", "8,192 and 16 MiB, `LinkLimits` in `cluster/src/link/mod.rs`", "message, request: `resource-constraint` to the sender; presence, roster: the row after the next", "`althing_link_waiting`, `althing_link_waiting_bytes`"),
    queue("stanzas out to one session there", "`CROWDED` 256 in `server/src/delivery/remote/pending.rs`", "the client that sends is read on when half is answered, after 0.5 s at most; where the receiver reads slowly, pauses from 10 ms to 0.5 s", "none needed").held(&[("server/src/delivery/remote/pending.rs", "out")]),
    queue("presence and roster events for a node whose link is full", "4,096 and 32 MiB a node, in `server/src/delivery/remote/overflow.rs`; messages to that node are refused meanwhile", "dropped, counted, logged; dropped too when the node is declared down", "`althing_stanzas_dropped_total`").held(&[("server/src/delivery/remote/overflow.rs", "tasks")]),
    queue("stanzas behind one that was not delivered there", "256 a session, 16,384 and 16 MiB in all, in `server/src/delivery/remote/pending.rs`", "`resource-constraint` to the sender", "`althing_delivery_total`").held(&[("server/src/delivery/remote/pending.rs", "behind")]),
    queue("stanzas of a peer for sessions that are about to be here", "those that it has out, see above, in `server/src/delivery/remote/arrivals.rs`; 5 s", "the peer has no more out; after that time it looks once more where the session is", "`althing_link_waiting` of the peer").held(&[("server/src/delivery/remote/arrivals.rs", "queues")]),
    queue("stanzas whose copies for several sessions of a node are counted together", "`MAX_GROUPS` 64 in `server/src/delivery/remote/groups.rs`", "the oldest is forgotten: where all of its copies are left by sessions that end, nobody hears of it", "none needed").held(&[("server/src/delivery/remote/groups.rs", "latest")]),
    queue("receivers of one task", "4,096 and 1 MiB of addresses, in `server/src/delivery/fan_out.rs`", "several tasks", "`althing_tasks_sent_total`"),
    queue("sessions that a node which stops gives away (XEP-0198)", "`AT_ONCE` 128 at a time, in `server/src/session/giving.rs`", "the next waits; what has not begun after 5 s ends here", "none needed").held(&[("server/src/session/giving.rs", "AT_ONCE")]),
    queue("Raft requests out to a peer", "256 and 64 MiB a lane, `LinkLimits`", "Raft tries again", "`althing_link_waiting`"),
    queue("one frame; one question on the discovery lane", "4 MiB a task, 16 MiB Raft; 64 KiB, 4 KiB, in `cluster/src/link/frame.rs` and `cluster/src/link/discovery.rs`", "the connection ends", "`althing_link_up`"),
    queue("tasks of a peer that wait for their turn; own tasks", "1,024 each, in `cluster/src/link/worker.rs`", "the peer's connection is not read on; own: refused", "`althing_link_waiting` of the peer").held(&[("cluster/src/link/worker.rs", "QUEUE")]),
    queue("requests of a peer that run aside", "256 in `cluster/src/link/server.rs`", "its connection is not read on", "as above").held(&[("cluster/src/link/server.rs", "MAX_ASIDE")]),
    queue("time of one task", "`run` 30 s in `cluster/src/link/mod.rs`", "given up, the next runs", "`althing_tasks_run_total`"),
    queue("replies kept for a peer that asks again", "8,192 and 16 MiB, in `cluster/src/link/inbox.rs`", "the oldest goes: its asker learns `ReplyLost`", "none needed"),
    queue("connections of nodes; nodes whose tasks are remembered", "4,096; 1,024, in `cluster/src/link/server.rs`", "wait in the kernel; the unconnected are forgotten, else refused", "`althing_link_up`").held(&[("cluster/src/link/server.rs", "MAX_CONNECTIONS")]),
    queue("commands that wait for their batch", "`QUEUE` 16,384 a group, in `cluster/src/raft/proposer.rs`", "the asker waits within its deadline (bind 15 s, store 8 s)", "`althing_raft_proposal_duration_seconds`").held(&[("cluster/src/raft/proposer.rs", "QUEUE")]),
    queue("one batch", "4,096 route or 512 store commands, about 64 KiB; a command above 96 KiB is refused", "the rest is the next batch", "`althing_raft_commands_total`"),
    queue("linearizable reads that wait for the next question", "4,096 a group, in `cluster/src/raft/barrier.rs`", "wait, 8 s at most", "`althing_raft_reads_waiting`").held(&[("cluster/src/raft/barrier.rs", "QUEUE")]),
    queue("writes that wait for the log's thread", "4,096 a group, in `cluster/src/raft/log_store.rs`", "Raft waits", "`althing_raft_proposal_duration_seconds`").held(&[("cluster/src/raft/log_store.rs", "QUEUE")]),
    queue("the log of a group", "cut off after 20,000 entries, 2,000 stay, in `cluster/src/raft/group.rs`; 16 MiB of its end in memory", "a node that needs more gets a snapshot", "`althing_raft_last_log_index`"),
    queue("events of the route log", "none: one that is not told would leave sessions out of step with the table. Each stands for sessions that the table had; losses are told 64 at a time (`server/src/cluster_node/events.rs`)", "-", "`althing_route_events_waiting`").held(&[("cluster/src/raft/state_machine.rs", "events"), ("server/src/cluster_node/events.rs", "LOSSES")]),
];
