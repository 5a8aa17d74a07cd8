//! The socket side of a client's stream.
