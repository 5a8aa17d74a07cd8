//! SASL mechanisms as small machines (RFC 6120 §6, RFC 4422).
//!
//! Nothing here knows XML or base64: octets go in, octets come out. The stream machine carries them.
//!
//! | file          | what                                                       | source                   |
//! |---------------|------------------------------------------------------------|--------------------------|
//! | `mechanism`   | the mechanisms and their hash functions                    | RFC 5802 §4, RFC 7677    |
//! | `keys`        | what an account keeps instead of its password              | RFC 5802 §3              |
//! | `binding`     | data that ties a login to its TLS connection               | RFC 5056, 5929, 9266     |
//! | `plain`       | PLAIN                                                      | RFC 4616                 |
//! | `scram`       | the texts of SCRAM, taken apart                            | RFC 5802 §5.1, §7        |
//! | `server`      | SCRAM, the server's part                                   | RFC 5802 §5              |
//! | `client`      | SCRAM, the client's part                                   | RFC 5802 §5              |
//! | `failure`     | why a login failed                                         | RFC 6120 §6.5            |

pub mod binding;
pub mod client;
pub mod failure;
pub mod keys;
pub mod mechanism;
pub mod plain;
mod scram;
pub mod server;

pub use binding::{ChannelBinding, TlsInfo};
pub use failure::{SaslCondition, SaslFailure};
pub use keys::{Credentials, PasswordError, ScramKeys, Secret, decoy};
pub use mechanism::{Hash, Mechanism};
