//! The behaviours that are owed, by id, in a line each.

/// One behaviour.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its id: a letter and a number.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Whether a test of it must be there.
    pub due: Due,
}

/// When a test of a row must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// With something that is not there yet.
    With(&'static str),
}

const SERVERS_AND_ROOMS: &str = "other servers and rooms";
const CLUSTER: &str = "the review of cluster rows";

const fn now(id: &'static str, title: &'static str) -> Row {
    Row { id, title, due: Due::Now }
}

const fn with(id: &'static str, title: &'static str, what: &'static str) -> Row {
    Row { id, title, due: Due::With(what) }
}

/// All rows. P: presence; T: the flow of packets; C: clusters; I: rules on IQs; S: the stages; R: IQ routing, receipts.
pub const ROWS: &[Row] = &[
    now("P1", "the stops of one presence, in order"),
    now("P2", "before a resource is bound nothing is routed"),
    now("P3", "others see the sender's own address"),
    // Remote domains are a part of it that waits for other servers.
    now("P4", "user, component and remote domain are three ways"),
    now("P5", "state before broadcast; the last presence is kept"),
    now("P6", "blocked contacts hear nothing, before any fan-out"),
    now("P7", "receivers of one presence by node, one task each"),
    now("P8", "each pair of sender and receiver keeps its order"),
    now("P9", "the cost of a presence grows with contacts only"),
    now("P10", "contacts spread over nodes hear once each"),
    now("P11", "everybody comes back at once: bounded, nothing lost"),
    now("P12", "who may see whom follows the roster and lost nodes"),
    now("P13", "invisible and blocked at a bearable cost"),
    now("P14", "of waiting presence the last one counts"),
    now("T1", "bytes may be cut anywhere"),
    now("T2", "each part has its queue: a slow one delays no other"),
    now("T3", "a part is an actor with configuration and figures"),
    now("T4", "reading and writing are scheduled apart"),
    now("T5", "what was read goes to the router"),
    now("T6", "this node, then others, then an error; no loops"),
    now("T7", "lanes by hash: order in each, urgent first"),
    now("T8", "the envelope's address before the stanza's"),
    now("T9", "a ping without an address is answered"),
    now("T10", "one reader a socket; a peer's close is seen at once"),
    now("T11", "the same stanza over plain streams, TLS and others"),
    now("T12", "each connection is counted while it is open"),
    now("T13", "full: who may wait waits, else refused and counted"),
    now("T14", "what comes in is handled, what follows goes on"),
    now("T15", "configuration changes without a new connection"),
    now("T16", "each part tells service discovery what it is"),
    now("T17", "figures at run time, from any part"),
    with("T18", "streams of our own, made anew when they break", SERVERS_AND_ROOMS),
    with("C1", "no fixed number of nodes", CLUSTER),
    with("C2", "entries name the node's start", CLUSTER),
    with("C3", "local and clustered, switched at run time", CLUSTER),
    with("C4", "more members than allowed are refused", CLUSTER),
    with("C5", "each change is seen once, in one order", CLUSTER),
    with("C6", "from a user here to a user there, in order", CLUSTER),
    with("C7", "a task for one node; an absent one is an error", CLUSTER),
    with("C8", "a task for all but oneself", CLUSTER),
    with("C9", "asking one or all, with results and deadlines", CLUSTER),
    with("C10", "a broadcast reaches each session once", CLUSTER),
    with("C11", "one leader at a time", CLUSTER),
    with("C12", "events of membership come in order", CLUSTER),
    with("C13", "of each lost session each contact hears once", CLUSTER),
    with("C14", "figures of every node", CLUSTER),
    with("C15", "an absent receiver is an error by kind of stanza", CLUSTER),
    with("C16", "many tasks in one write", CLUSTER),
    now("I1", "an id is required"),
    now("I2", "the type is one of four"),
    now("I3", "a request has one answer, with its id"),
    now("I4", "an answer is never answered"),
    now("I5", "a request has one child"),
    now("I6", "a result has one child at most"),
    now("I7", "an error says what is wrong"),
    now("S1", "modules see what they have declared"),
    now("S2", "what nobody wants goes on untouched"),
    now("S3", "all that are interested, at the same time"),
    now("S4", "preprocess may block"),
    now("S5", "a queue of fixed size for each module that waits"),
    now("S6", "postprocess sees what nobody handled"),
    now("S7", "filters see every result"),
    now("S8", "two points at which packets are blocked"),
    now("S9", "nothing is delivered that nobody passed on"),
    now("S10", "a packet does not change while it is processed"),
    now("S11", "a stage yields any number of results"),
    now("S12", "two passes, for sender and receiver, archives too"),
    with("S13", "what a component sends passes the receiver's rules", SERVERS_AND_ROOMS),
    now("S14", "who is away gets it later"),
    now("S15", "a command has one answer"),
    now("R1", "kept before it is sent"),
    now("R2", "a receipt deletes what was kept"),
    now("R3", "sent again by age"),
    now("R4", "too old: disconnected, or offline"),
    now("R5", "receipts by device"),
    now("R6", "sent again in the order of creation"),
    now("R7", "only messages and IQs are kept"),
    now("R8", "the forms of a receipt"),
    now("R9", "acknowledged by one device is pending for another"),
    now("R10", "one stanza to several addresses"),
    now("R11", "the server's own requests are answered once"),
    now("R12", "components before handlers of the server"),
    now("R13", "a request without a namespace is refused"),
    now("R14", "a request to one who blocks is refused"),
    now("R15", "a request that nobody knows is refused"),
    now("R16", "a request to an absent resource is refused"),
    now("R17", "offline messages in batches"),
    now("R18", "what is not kept"),
    now("R19", "kept in order, with a bound in bytes"),
    now("R20", "forgotten from memory and read again"),
    now("R21", "receipts and offline messages are apart"),
    now("R22", "old ones move on"),
    now("R23", "offline messages by device"),
];
