//! The four stages of a packet: preprocess, process, postprocess, filter.
