//! Drives whole nodes from outside, and reads the house itself.
//!
//! | module     | what                                                                      |
//! |------------|---------------------------------------------------------------------------|
//! | `setup`    | how a node is configured: address, certificates, files                    |
//! | `node`     | a node as a real process: start, kill, pause, restart on the same data    |
//! | `cluster`  | several nodes that are one server                                         |
//! | `admin`    | what a node says through its admin socket                                 |
//! | `endpoint` | where a node is reached                                                   |
//! | `stream`   | a client's XML stream: header, STARTTLS, raw bytes                        |
//! | `login`    | registration, SASL with channel binding, resource binding                 |
//! | `client`   | a logged-in client                                                        |
//! | `friends`  | rosters and presence between clients                                      |
//! | `converse` | numbered messages both ways: nothing lost, doubled, reordered             |
//! | `script`   | wire scripts: a conversation in text (format: `tests/wire/README.md`)     |
//! | `tidy`     | rules on the tree: layers, sizes, names                                   |

pub mod admin;
pub mod client;
pub mod cluster;
pub mod converse;
pub mod deadline;
pub mod endpoint;
pub mod friends;
pub mod login;
pub mod node;
pub mod random;
pub mod script;
pub mod setup;
pub mod socket;
pub mod stream;
pub mod tidy;
pub mod tls;
