//! Roster items and the subscription table (RFC 6121 §2, §3, Appendix A).
