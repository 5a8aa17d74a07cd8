//! Who is where: nodes and the route table. Knows no XEP.
//!
//! | module      | what                                                            |
//! |-------------|-----------------------------------------------------------------|
//! | [`node_id`] | names of nodes: a stable id, and an incarnation that each start raises |
//! | [`raft`]    | what orders the commands of all nodes: the log and the state of the groups |
//! | [`routes`]  | the route table, and the strategies that keep it                |
//! | [`wire`]    | values to bytes and back, with a limit                          |

pub mod node_id;
pub mod raft;
pub mod routes;
pub mod wire;
