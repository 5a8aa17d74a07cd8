//! Who is where: nodes, the route table, links between nodes and the tasks they carry. Knows no XEP.
//!
//! | module       | what                                                            |
//! |--------------|-----------------------------------------------------------------|
//! | [`cluster`]  | one node's part in the cluster, assembled                       |
//! | [`durable`]  | what every sled database needs from the file system            |
//! | [`executor`] | what runs a task on the node that it was sent to                |
//! | [`lease`]    | whether this node may act                                       |
//! | [`link`]     | connections between nodes: frames, lanes, sending and resending |
//! | [`members`]  | who belongs to the cluster: joining, voters, the dead           |
//! | [`node_id`]  | names of nodes: a stable id, and an incarnation that each start raises |
//! | [`origin`]   | how a group does what it is asked once                          |
//! | [`raft`]     | what orders the commands of all nodes: the log and the state of the groups |
//! | [`routes`]   | the route table, and the strategies that keep it                |
//! | [`store_log`] | the seam between the store group and its rows                  |
//! | [`task`]     | the one table of what a node can ask of another                 |
//! | [`wire`]     | values to bytes and back, with a limit                          |

pub mod cluster;
pub mod disk;
pub mod durable;
pub mod executor;
pub mod lease;
pub mod link;
pub mod members;
pub mod node_id;
pub mod origin;
pub mod raft;
pub mod routes;
pub mod store_log;
pub mod task;
mod upkeep;
pub mod wire;
