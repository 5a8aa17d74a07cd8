//! The socket side of the streams of clients and of external components.
//!
//! | file            | what                                                                   |
//! |-----------------|------------------------------------------------------------------------|
//! | `connection.rs` | one connection from accept to close; the only file that reads and writes it |
//! | `component.rs`  | the same for an external component                                      |
//! | `socket.rs`     | plain TCP or TLS behind one type                                       |
//! | `login.rs`      | what the stream machine asks for: credentials, TLS, bind               |
//! | `resume.rs`     | a former stream in the place of a bind                                 |
//! | `lane.rs`       | the client's work for its session                                      |
//! | `writer.rs`     | from the session's outbox to the socket                                |

pub mod component;
pub mod connection;
mod lane;
pub mod login;
pub(crate) mod resume;
mod silence;
pub mod socket;
pub mod writer;

pub(crate) use resume::{MOST_ON_ITS_WAY, hand_over};
