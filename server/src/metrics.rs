//! The node's Prometheus registry.
