//! Sections `[auth]` and `[registration]`: who may come in.

use super::section::section;

/// SASL mechanisms that can be switched on, strongest first.
pub const MECHANISMS: &[&str] = &[
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "PLAIN",
];

section! {
    /// Login (RFC 6120 §6).
    Auth = "auth" {
        /// SASL mechanisms that are offered. The -PLUS forms need TLS, and PLAIN is offered over TLS only
        /// (see `allow_plaintext`).
        mechanisms: Vec<String> = MECHANISMS.iter().map(|name| (*name).to_owned()).collect();
        /// PBKDF2 iterations of passwords that are set from now on (RFC 5802 §5.1; RFC 7677 asks for at
        /// least 4096).
        scram_iterations: u32 = 10_000, in 4096..=1000000;
        /// Lets clients log in without TLS. Refused unless every address of `listen.c2s` and
        /// `listen.web` is a loopback address.
        allow_plaintext: bool = false;
        /// Failed attempts on one stream before it is closed.
        max_failures: u32 = 5, in 1..=100;
    }
}

section! {
    /// Accounts that people make themselves (XEP-0077).
    Registration = "registration" {
        /// Whether a client may make an account before it logs in.
        enabled: bool = false;
        /// Accounts that one IP address may make in an hour, in the long run.
        per_ip_per_hour: u32 = 3, in 1..=1000000;
        /// Accounts that one IP address may make at once before `per_ip_per_hour` begins to bind.
        per_ip_burst: u32 = 3, in 1..=1000000;
        /// Whether who is logged in may change the password in band (XEP-0077 §3.3), also where `enabled` is off.
        password_change: bool = true;
        /// Whether who is logged in may remove the account in band (XEP-0077 §3.2), also where `enabled` is off.
        removal: bool = true;
        /// Frees clients that come from a loopback address from both bounds. For development and tests.
        unlimited_on_loopback: bool = false;
    }
}

section! {
    /// Search for users by the names in their vCards (XEP-0055). A vCard whose CLASS is PRIVATE or CONFIDENTIAL is not
    /// found.
    Search = "search" {
        /// Whether users of this server may search. Whoever may can find out who has an account.
        enabled: bool = false;
        /// Most users of one answer.
        results: usize = 50, in 1..=500;
        /// Searches that one account may make in an hour, in the long run.
        per_hour: u32 = 120, in 1..=1000000;
        /// Searches that one account may make at once before `per_hour` begins to bind.
        burst: u32 = 20, in 1..=1000000;
    }
}
