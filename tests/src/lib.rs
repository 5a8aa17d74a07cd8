//! Drives whole nodes from outside, and reads the house itself.
//!
//! | module     | what                                                                      |
//! |------------|---------------------------------------------------------------------------|
//! | `node`     | a node as a real process: start, kill, restart on the same data           |
//! | `endpoint` | where a node is reached                                                   |
//! | `stream`   | a client's XML stream: header, STARTTLS, raw bytes                        |
//! | `login`    | registration, SASL with channel binding, resource binding                 |
//! | `client`   | a logged-in client                                                        |
//! | `script`   | wire scripts: a conversation in text (format: `tests/wire/README.md`)     |
//! | `metrics_used` | what alerts and dashboard ask of a node                               |
//! | `tidy`     | rules on the tree: layers, sizes, names                                   |

pub mod client;
pub mod deadline;
pub mod endpoint;
pub mod login;
pub mod metrics_used;
pub mod node;
pub mod random;
pub mod script;
pub mod socket;
pub mod stream;
pub mod tidy;
pub mod tls;
