//! PURE: frames, the units that links carry.
//!
//! ```text
//! body length u32 | version u16 | lane u8 | kind u8 | id u64 | body
//! ```
//!
//! All numbers are big-endian. This layout, and that of hello and refusal, never change: they are what two
//! releases need in order to find out that they cannot talk.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the body.
pub const HEADER: usize = 16;

/// The version of a frame that is sent before the two sides have agreed on one.
pub const VERSION_OF_HELLO: u16 = 0;

/// What a connection is for. Each lane to a peer is a connection of its own, so that a large frame of one does
/// not delay another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Raft of the route table.
    Routes = 1,
    /// Raft of the store.
    Store = 2,
    /// Snapshots of both.
    Snapshot = 3,
    /// Tasks.
    Tasks = 4,
    /// One question to a node that need not be a member yet. Not kept: each question dials anew.
    Discovery = 5,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 5] = [Lane::Routes, Lane::Store, Lane::Snapshot, Lane::Tasks, Lane::Discovery];

    /// The lanes that are kept connected to each peer.
    pub const KEPT: [Lane; 4] = [Lane::Routes, Lane::Store, Lane::Snapshot, Lane::Tasks];

    /// Most bytes of a body.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            Lane::Tasks => 4 << 20,
            Lane::Discovery => 64 << 10,
            Lane::Routes | Lane::Store | Lane::Snapshot => crate::wire::MAX_VALUE,
        }
    }

    /// The name, for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Lane::Routes => "routes",
            Lane::Store => "store",
            Lane::Snapshot => "snapshot",
            Lane::Tasks => "tasks",
            Lane::Discovery => "discovery",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Lane::ALL.into_iter().find(|lane| *lane as u8 == byte)
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first frame in each direction: who speaks.
    Hello = 1,
    /// In place of the second hello: why the connection is closed.
    Refusal = 2,
    /// Says that the sender lives. From the dialing side its id is the lowest sequence number that is still
    /// unanswered: what is kept for repeating an answer below it can go.
    Heartbeat = 3,
    /// Asks for a reply with the same id.
    Request = 4,
    /// Answers a request.
    Reply = 5,
    /// Is run once; asks for no reply.
    Task = 6,
    /// All tasks up to this id have been run.
    Ack = 7,
}

impl FrameKind {
    const ALL: [FrameKind; 7] = [
        FrameKind::Hello,
        FrameKind::Refusal,
        FrameKind::Heartbeat,
        FrameKind::Request,
        FrameKind::Reply,
        FrameKind::Task,
        FrameKind::Ack,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        FrameKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The protocol version of the body.
    pub version: u16,
    /// The lane of the connection.
    pub lane: Lane,
    /// What the frame is.
    pub kind: FrameKind,
    /// Sequence number of a task or request, and of what answers it.
    pub id: u64,
    /// What the kind needs.
    pub body: Bytes,
}

/// Why bytes are no frame. The connection cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than the lane allows; told before a byte of it is kept.
    #[error("a body of {length} bytes where {limit} are allowed")]
    TooLarge {
        /// What the header says.
        length: usize,
        /// What the reader allows.
        limit: usize,
    },
    /// No lane has that number.
    #[error("lane {0} is unknown")]
    Lane(u8),
    /// No kind of frame has that number.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when the body is longer than the lane allows.
    pub fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let (length, limit) = (self.body.len(), self.lane.max_body());
        let short = u32::try_from(length).ok().filter(|_| length <= limit);
        let short = short.ok_or(FrameError::TooLarge { length, limit })?;
        out.reserve(HEADER + length);
        out.put_u32(short);
        out.put_u16(self.version);
        out.put_u8(self.lane as u8);
        out.put_u8(self.kind as u8);
        out.put_u64(self.id);
        out.put_slice(&self.body);
        Ok(())
    }
}

/// Finds frames in bytes that arrive in pieces.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// A reader that refuses bodies above `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        FrameReader { buffer: BytesMut::new(), limit }
    }

    /// Changes the limit for frames that have not been returned yet.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Where arriving bytes go. Call [`FrameReader::next_frame`] until it has no more before adding again: then
    /// no more than one frame and one read is held.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`] as soon as a header is wrong. The reader is of no use after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let mut header = &header[..];
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        let version = header.get_u16();
        let (lane, kind) = (header.get_u8(), header.get_u8());
        let id = header.get_u64();
        let lane = Lane::from_byte(lane).ok_or(FrameError::Lane(lane))?;
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let limit = self.limit.min(lane.max_body());
        if length > limit {
            return Err(FrameError::TooLarge { length, limit });
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { version, lane, kind, id, body }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (any::<u16>(), 0..Lane::ALL.len(), 0..7_usize, any::<u64>(), any::<Vec<u8>>()).prop_map(
            |(version, lane, kind, id, body)| Frame {
                version,
                lane: Lane::ALL[lane],
                kind: FrameKind::ALL[kind],
                id,
                body: body.into(),
            },
        );
        proptest::collection::vec(frame, 0..8)
    }

    fn bytes_of(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.write(&mut bytes).unwrap();
        }
        bytes
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let (mut reader, mut found) = (FrameReader::new(1 << 20), Vec::new());
        for piece in pieces {
            reader.buffer().extend_from_slice(piece);
            while let Some(frame) = reader.next_frame()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn the_layout_is_the_one_of_every_release() {
        let body = Bytes::from_static(b"ab");
        let frame = Frame { version: 1, lane: Lane::Tasks, kind: FrameKind::Task, id: 0x0102, body };
        let golden = [0, 0, 0, 2, 0, 1, 4, 6, 0, 0, 0, 0, 0, 0, 1, 2, b'a', b'b'];
        assert_eq!(bytes_of(&[frame])[..], golden);
        let numbers: Vec<u8> = FrameKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Lane::ALL.map(|lane| lane as u8), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_from_the_header_alone() {
        let mut reader = FrameReader::new(100);
        let header = [0, 0, 0, 101, 0, 1, 4, 6, 0, 0, 0, 0, 0, 0, 0, 1];
        reader.buffer().extend_from_slice(&header);
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge { length: 101, limit: 100 }));

        let mut reader = FrameReader::new(usize::MAX);
        reader.buffer().extend_from_slice(&[255, 255, 255, 255, 0, 1, 4, 6, 0, 0, 0, 0, 0, 0, 0, 1]);
        let limit = Lane::Tasks.max_body();
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge { length: 0xffff_ffff, limit }));
    }

    #[test]
    fn unknown_lanes_and_kinds_are_refused() {
        assert_eq!(read(&[&[0, 0, 0, 0, 0, 1, 9, 6, 0, 0, 0, 0, 0, 0, 0, 1]]), Err(FrameError::Lane(9)));
        assert_eq!(read(&[&[0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1]]), Err(FrameError::Kind(0)));
    }

    #[test]
    fn a_body_above_the_lanes_limit_is_not_written() {
        let body = Bytes::from(vec![0; Lane::Tasks.max_body() + 1]);
        let frame = Frame { version: 1, lane: Lane::Tasks, kind: FrameKind::Task, id: 1, body };
        let mut out = BytesMut::new();
        assert!(matches!(frame.write(&mut out), Err(FrameError::TooLarge { .. })));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn split_anywhere_the_frames_are_the_same(frames in frames(), cut in any::<prop::sample::Index>()) {
            let bytes = bytes_of(&frames);
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(&read(&[head, tail]).unwrap(), &frames);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&read(&single).unwrap(), &frames);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(frames) = read(&[&bytes]) {
                prop_assert!(bytes.starts_with(&bytes_of(&frames)));
            }
        }
    }
}
