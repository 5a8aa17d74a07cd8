//! A cluster under faults that a seed chooses, clients that resume anywhere, and what must hold all the same.
//!
//! | module    | what                                                                     |
//! |-----------|--------------------------------------------------------------------------|
//! | `dice`    | numbers that a seed repeats                                              |
//! | `plan`    | which fault comes when, where and for how long                           |
//! | `log`     | what one client has done and seen                                        |
//! | `person`  | a client with XEP-0198 that comes back at any node, and keeps such a log  |
//! | `crowd`   | what the clients of a run share                                          |
//! | `checker` | reads all logs and says what was promised and did not hold               |

pub mod checker;
pub mod crowd;
pub mod dice;
pub mod log;
pub mod person;
pub mod plan;
