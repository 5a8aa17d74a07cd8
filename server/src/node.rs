//! Builds and stops one whole node from its configuration: no process-wide state.
