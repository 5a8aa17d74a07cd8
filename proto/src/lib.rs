//! XMPP without I/O: bytes and time go in, values come out.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or starts a task
//! (`clippy.toml` of this crate bans the calls). The server feeds it and performs what it asks for.
//!
//! | module      | what                                                     | source            |
//! |-------------|----------------------------------------------------------|-------------------|
//! | [`xml`]     | bytes to elements and back, with limits                  | RFC 6120 §4, §11  |
//! | [`jid`]     | addresses                                                | RFC 7622          |
//! | [`stanza`]  | message, presence, iq, their errors and replies          | RFC 6120 §8       |
//! | [`stanza_id`] | the server's id of a message                           | XEP-0359          |
//! | [`stream`]  | the client-to-server stream machine, stream errors       | RFC 6120 §4–§7    |
//! | [`sasl`]    | PLAIN, SCRAM and their channel bindings                  | RFC 4616, 5802    |
//! | [`roster`]  | roster items, the subscription table                     | RFC 6121 §2, §3   |
//! | [`form`]    | data forms: asked, submitted, results                    | XEP-0004          |
//! | [`disco`]   | what service discovery tells, and its hashes             | XEP-0030, 0115, 0390 |
//! | [`privacy`] | privacy lists and block lists                            | XEP-0016, 0191    |
//! | [`entropy`] | random-looking bytes from a seed that is handed in       |                   |
//! | [`time`]    | timestamps that are handed in, and their text form       | XEP-0082          |
//! | [`vcard`]   | vCards and the hash of an avatar                         | XEP-0054, XEP-0153 |
//! | [`ns`]      | every namespace, beside its specification                |                   |

pub mod disco;
pub mod entropy;
pub mod form;
pub mod jid;
pub mod ns;
pub mod privacy;
pub mod roster;
pub mod rsm;
pub mod sasl;
pub mod stanza;
pub mod stanza_id;
pub mod stream;
pub mod time;
pub mod vcard;
pub mod xml;
