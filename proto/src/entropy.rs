//! Random-looking bytes from a seed that is handed in.
