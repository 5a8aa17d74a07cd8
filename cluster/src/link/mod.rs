//! Connections between nodes: frames, lanes, sending and resending.

pub mod frame;
