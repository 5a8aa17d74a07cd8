//! Section `[limits]`: bounds on what a stranger can fill.

use super::section::section;

section! {
    /// Bounds on what a stranger can fill. A client that passes one gets a stream error and is closed.
    Limits = "limits" {
        /// Client connections at the same time, on all listeners together. One more is closed at once.
        connections: usize = 100_000, in 1..=10000000;
        /// Client connections at the same time from one IP address. Loopback addresses are not counted.
        connections_per_ip: usize = 1_000, in 1..=10000000;
        /// Bytes of one stanza after login.
        stanza_bytes: usize = 262_144, in 10240..=16777216;
        /// Bytes of one element before login (RFC 6120 §13.12 asks for at least 10000).
        stanza_bytes_before_login: usize = 10_240, in 10000..=16777216;
        /// Elements inside one another, the stanza counted as the first.
        depth: usize = 64, in 8..=1024;
        /// Attributes of one element, namespace declarations counted.
        attributes: usize = 64, in 16..=4096;
        /// Elements in one stanza, at every depth.
        children: usize = 4_096, in 64..=1048576;
        /// Seconds from the connection to the bound resource, the TLS handshake counted.
        login_timeout_s: u64 = 30, in 1..=3600;
        /// Bytes that wait to be written to one client. A client that reads too slowly to stay below is closed.
        outbox_bytes: usize = 1_048_576, in 65536..=1073741824;
        /// Bytes of presence and chat states that wait for a client which has said that nobody looks at it (XEP-0352); at most a
        /// quarter of `outbox_bytes`. With more they are sent. 0: none wait.
        inactive_bytes: usize = 65_536, in 0..=1073741824;
        /// Seconds that a client with waiting bytes may take none of them before it is closed.
        outbox_stall_s: u64 = 60, in 1..=3600;
        /// Stanzas that one client was sent and has not acknowledged (XEP-0198). More wait until it has, as long as
        /// `outbox_bytes` allow.
        unacked_stanzas: usize = 250, in 16..=100000;
        /// Bytes of them, beside `unacked_stanzas`.
        unacked_bytes: usize = 1_048_576, in 65536..=1073741824;
        /// Seconds that a session waits without a connection for its client to resume the stream (XEP-0198); a client may ask
        /// for less. 0: streams cannot be resumed.
        resume_s: u64 = 300, in 0..=86400;
        /// Seconds that a client has to acknowledge what it was sent when it is asked (XEP-0198); then its connection
        /// ends with `connection-timeout`.
        ack_timeout_s: u64 = 60, in 1..=3600;
        /// Stanzas that wait for one session. More: the sender is told `resource-constraint`. A change holds for
        /// sessions that begin after it.
        mailbox_stanzas: usize = 1_024, in 16..=1048576;
        /// Bytes of the stanzas that wait for one session, beside `mailbox_stanzas`.
        mailbox_bytes: usize = 1_048_576, in 65536..=1073741824;
        /// Sessions of one account at the same time. One more is refused with `resource-constraint`.
        sessions_per_account: usize = 100, in 1..=100000;
        /// Resources that are bound at the same time. Further ones wait for their turn, so that those who are there already
        /// are served while many come at once.
        binds_at_once: usize = 64, in 1..=100000;
        /// Binds that wait for their turn. One more is refused with `resource-constraint`.
        binds_waiting: usize = 20_000, in 1..=10000000;
        /// Seconds of silence after which the kernel asks whether the client's host is still there (TCP
        /// keepalive). Holds for connections that begin after it.
        tcp_keepalive_s: u64 = 120, in 5..=86400;
        /// Seconds of silence after which a client is asked by the server whether it is there (XEP-0199); 0: it is never asked.
        /// Streams advertise it (XEP-0478). An open stream follows a change once the old time is over; after 0 within 10 minutes.
        client_ping_s: u64 = 180, in 0..=86400;
        /// Seconds that a client which was asked has to say something; then its stream ends with `connection-timeout`.
        client_ping_timeout_s: u64 = 60, in 1..=3600;
        /// Contacts in one roster.
        roster_items: usize = 1_000, in 1..=100000;
        /// Subscription requests that wait for one user's answer. Further ones are refused with `resource-constraint`.
        pending_subscriptions: usize = 200, in 1..=100000;
        /// Bytes of one vCard, its photo included (XEP-0054). It has to fit into `stanza_bytes` too.
        vcard_bytes: usize = 262_144, in 1024..=1048576;
        /// Addresses in one stanza to the server that is to go to all of them (XEP-0033). Of senders who are no users of
        /// this server at most 21 are taken.
        multicast_addresses: usize = 50, in 1..=100;
        /// Namespaces in which one account may keep private XML (XEP-0049).
        private_namespaces: usize = 100, in 1..=10000;
        /// Bytes of private XML of one account, in all namespaces together; 65536 in one at most.
        private_bytes: usize = 262_144, in 1024..=16777216;
        /// Addresses that one user may block, in each privacy list. One more is refused with `resource-constraint`.
        block_entries: usize = 10_000, in 1..=100000;
        /// Bytes of the addresses that one user may block, in each privacy list. A client gets them all in one stanza.
        block_bytes: usize = 524_288, in 4096..=16777216;
        /// Privacy lists of one user. One more is refused with `resource-constraint`.
        privacy_lists: usize = 20, in 1..=1000;
        /// Rules of one privacy list, beside the addresses that are blocked wholly.
        privacy_items: usize = 500, in 1..=10000;
    }
}

impl Limits {
    /// After how much silence a client is asked whether it is there; `None`: never.
    #[must_use]
    pub fn client_ping(&self) -> Option<std::time::Duration> {
        (self.client_ping_s > 0).then(|| std::time::Duration::from_secs(self.client_ping_s))
    }
}
