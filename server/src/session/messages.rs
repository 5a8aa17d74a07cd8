//! The actix messages of a session.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{Message, MessageResponse};
use futures_util::future::BoxFuture;
use minidom::Element;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_proto::stanza::Stanza;
use althing_proto::stream::error::StreamError;

use super::copies::Share;
use super::effect::{Effect, UserEvent};
use super::handed_over::{Claim, HandedOver, NotHanded};
use super::inbound::Hold;
use super::losses::Lost;
use crate::pipeline::Effects;

/// What a client sent and what followed from it, not yet done. The connection carries it between the
/// session and whatever the session waits for, so that the session itself never waits.
#[derive(Debug, Default)]
pub struct Work {
    /// Effects to perform first, in order.
    pub effects: VecDeque<Effect>,
    /// Elements from the client, in the order received.
    pub elements: VecDeque<Element>,
}

/// How far the work went.
#[derive(MessageResponse)]
pub enum Progress {
    /// All done.
    Done,
    /// The next effects come from outside; then the rest goes on.
    Waiting(BoxFuture<'static, Effects>, Work),
    /// The session has ended: nothing more will be done.
    Ended,
}

/// Go on with work from this session's own client.
#[derive(Message)]
#[rtype(result = "Progress")]
pub struct Advance(pub Work);

/// A stanza for this session: it passes the receiver's pass.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver {
    /// The stanza.
    pub stanza: Stanza,
    /// Who else gets it.
    pub share: Share,
}

/// Presences that this session has asked for: they pass the receiver's pass, one after the other.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Show(pub Vec<Stanza>);

/// Something that concerns all sessions of the account.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Notify(pub UserEvent);

/// What something that ran aside came to. Whoever sent it takes the effects out again where the session has gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Return {
    /// The effects, until the session takes them.
    pub effects: Arc<Mutex<Effects>>,
    /// In the receiver's pass: whose later stanzas wait for this.
    pub sender: Option<u64>,
    /// In the sender's pass: the stanza that is not safe before they are performed.
    pub hold: Option<Hold>,
}

/// Look whether receipts are late. Answers whether to look again.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct CheckReceipts;

/// Those sessions were lost with their node.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LostSessions(pub Arc<Lost>);

/// The connection is lost. Answers whether the session goes on without one: else it is to be ended.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Detach;

/// Whether the session could be handed over: its stream can be resumed, and it has not ended.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct CanMove;

/// The session's stream is to go on elsewhere. Answered when all that its client has sent is safe; then [`HandOver`] follows.
#[derive(Message)]
#[rtype(result = "Result<(), NotHanded>")]
pub enum Prepare {
    /// A client resumes it: the old connection is given up.
    Resumed(Claim),
    /// The node stops, and the connection stays for a moment. It stops waiting for its store then.
    Stopping(Instant),
}

/// Hand the session over to that start of a node. Nothing for it gets into its mailbox behind this.
#[derive(Message)]
#[rtype(result = "Result<HandedOver, NotHanded>")]
pub struct HandOver {
    /// Who gets it.
    pub to: (NodeId, Incarnation),
    /// Where the node stops: ends when it is there. Then its connection is closed.
    pub given: Option<oneshot::Receiver<()>>,
}

/// Why a session ends.
#[derive(Debug, Clone)]
pub enum EndReason {
    /// The client closed its stream (RFC 6120 §4.4), or the connection is lost.
    ClientGone,
    /// Somebody else ends it, or has, and says why: whoever gives this only waits until it has ended.
    Known,
    /// The server ends it, with that stream error.
    Error(StreamError),
    /// The node has lost its lease: the stream is closed, the route stays, nobody is told.
    LeaseLost,
}

/// End the session. Answered when its contacts were told and its route is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct End(pub EndReason);
