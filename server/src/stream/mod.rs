//! The socket side of a client's stream.
//!
//! | file            | what                                                                   |
//! |-----------------|------------------------------------------------------------------------|
//! | `connection.rs` | one connection from accept to close; the only file that reads and writes it |
//! | `socket.rs`     | plain TCP or TLS behind one type                                       |
//! | `login.rs`      | what the stream machine asks for: credentials, TLS, bind               |
//! | `writer.rs`     | from the session's outbox to the socket                                |

pub mod connection;
pub mod login;
pub mod socket;
pub mod writer;
