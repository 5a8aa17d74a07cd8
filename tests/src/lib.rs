//! Drives whole nodes from outside, and reads the house itself.
//!
//! | module     | what                                                                      |
//! |------------|---------------------------------------------------------------------------|
//! | `setup`    | how a node is configured: address, certificates, files                    |
//! | `node`     | a node as a real process: start, kill, pause, restart on the same data    |
//! | `cluster`  | several nodes that are one server                                         |
//! | `lab`      | hosts of their own for the nodes of a cluster, and a network that fails   |
//! | `admin`    | what a node says through its admin socket                                 |
//! | `endpoint` | where a node is reached                                                   |
//! | `stream`   | a client's XML stream: header, STARTTLS, raw bytes                        |
//! | `websocket` | a client's WebSocket, and requests to the HTTP port beside it            |
//! | `login`    | registration, SASL with channel binding, resource binding                 |
//! | `client`   | a logged-in client                                                        |
//! | `component`| an external component                                                     |
//! | `friends`  | rosters and presence between clients                                      |
//! | `away`     | messages to who is away, and who takes them later                         |
//! | `converse` | numbered messages both ways: nothing lost, doubled, reordered             |
//! | `history`  | what many clients have sent and received while nodes come and go          |
//! | `talker`   | a client that talks all the time and comes back when its stream ends      |
//! | `nemesis`  | clients that resume anywhere under faults, and the checker of their logs   |
//! | `witness`  | asks all nodes where addresses are: they must agree                       |
//! | `disk`     | small disks, to be filled up                                             |
//! | `script`   | wire scripts: a conversation in text (format: `tests/wire/README.md`)     |
//! | `metrics_used` | what alerts and dashboard ask of a node                               |
//! | `rows`     | which test shows which behaviour that is owed                             |
//! | `tidy`     | rules on the tree: layers, sizes, names                                   |

pub mod admin;
pub mod away;
pub mod client;
pub mod cluster;
pub mod component;
pub mod converse;
pub mod deadline;
pub mod disk;
pub mod endpoint;
pub mod friends;
pub mod history;
pub mod lab;
pub mod login;
pub mod metrics_used;
pub mod nemesis;
pub mod node;
pub mod random;
pub mod rows;
pub mod script;
pub mod setup;
pub mod socket;
pub mod stream;
pub mod talker;
pub mod tidy;
pub mod tls;
pub mod websocket;
pub mod witness;
