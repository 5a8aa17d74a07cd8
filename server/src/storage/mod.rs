//! Durable data: one small trait a concern.
