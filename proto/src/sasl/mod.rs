//! SASL mechanisms as small machines (RFC 6120 §6).
