//! The configuration: one struct a section, defaults written out.
