//! Streams (RFC 6120 §4 to §7): their errors and the client-to-server machine.
//!
//! [`StreamMachine`] is one client's connection without its socket: [`Input`]s with a timestamp go in,
//! [`Action`]s come out, and whoever holds the socket performs them in order. The way of a login:
//!
//! | file        | what                                                          | RFC 6120      |
//! |-------------|---------------------------------------------------------------|---------------|
//! | `machine`   | the door: inputs, the loop over bytes, how a stream ends      | §4.1, §4.4    |
//! | `header`    | the client's header, and ours                                 | §4.7, §4.8    |
//! | `features`  | what is offered when                                          | §4.3          |
//! | `negotiate` | first-level elements before login: STARTTLS, registration     | §5, XEP-0077  |
//! | `login`     | SASL                                                          | §6            |
//! | `bind`      | resource binding                                              | §7            |
//! | `resume`    | a former stream in the place of a bind                        | XEP-0198      |
//! | `management`| counts of stanzas, and the elements that tell them            | XEP-0198      |
//! | `error`     | stream errors                                                 | §4.9          |
//! | `framing`   | the form of our side on its transport                         | RFC 7395      |
//! | `websocket` | messages of a WebSocket to elements                           | RFC 7395      |
//! | `frames`    | frames of a WebSocket                                         | RFC 6455      |
//!
//! [`component::ComponentMachine`] is the same for external components (XEP-0114), which have a stream of their own kind.

mod action;
mod bind;
pub mod component;
mod config;
pub mod error;
mod features;
mod frames;
mod framing;
mod header;
mod input;
mod login;
mod machine;
pub mod management;
mod negotiate;
mod resume;
mod state;
mod websocket;

pub use action::Action;
pub use bind::second_bind;
pub use config::StreamConfig;
pub use framing::Framing;
pub use input::{
    Bar, BindError, CredentialsReply, Input, PasswordVerdict, ResumeError, Resumption, Transport,
};
pub use machine::{MAX_WAITING_BYTES, StreamMachine};

pub use crate::sasl::TlsInfo;
