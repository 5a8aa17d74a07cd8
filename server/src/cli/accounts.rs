//! The accounts of a node that is down, for the commands.
