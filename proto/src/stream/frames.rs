//! Frames of a WebSocket (RFC 6455 §5): the client's, read as they come, and ours. No extension is spoken.

/// §7.4.1: the end in order.
pub(super) const NORMAL: u16 = 1000;
/// §7.4.1: the frames break their rules.
pub(super) const PROTOCOL_ERROR: u16 = 1002;
/// §7.4.1: a kind of data that cannot be taken: binary.
pub(super) const UNSUPPORTED: u16 = 1003;
/// §7.4.1: text that is not UTF-8.
pub(super) const NOT_UTF_8: u16 = 1007;
/// §7.4.1: more than the server wants, in a way that no other code names.
pub(super) const POLICY: u16 = 1008;
/// §7.4.1: a message that is too large.
pub(super) const TOO_BIG: u16 = 1009;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// §5.2: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// Frames of one message. A client has no reason to cut a stanza into so many, and each costs work.
const MAX_FRAGMENTS: u32 = 1024;

/// What a frame brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// So many bytes of a text message, unmasked into the buffer.
    Text(usize),
    /// The message is complete.
    End,
    /// To be answered with the same bytes (§5.5.2).
    Ping(Vec<u8>),
    /// The peer says no more (§5.5.1); its code, if it has given one.
    Close(Option<u16>),
}

/// A rule that was broken: the connection fails (§7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) code: u16,
    pub(super) text: &'static str,
}

const fn violation(code: u16, text: &'static str) -> Violation {
    Violation { code, text }
}

/// The frame under way.
#[derive(Debug)]
struct Payload {
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    /// Bytes of it that were read.
    at: usize,
    left: usize,
}

/// Reads what a client sends. It holds no byte of a message: a limit is held by the length that the frame's head
/// tells, before the first of them.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: [u8; MAX_HEAD],
    filled: usize,
    payload: Option<Payload>,
    /// A message whose last frame has not come.
    open: bool,
    /// Bytes and frames of the message so far.
    size: usize,
    fragments: u32,
    /// Of a control frame: 125 bytes at most.
    control: Vec<u8>,
}

impl FrameReader {
    /// The next thing that the bytes bring, or `None` when all of `input` is read. Takes from its front, never a
    /// byte past what it returns. A message may have `limit` bytes. Text is put into `chunk`.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        limit: usize,
        chunk: &mut [u8],
    ) -> Result<Option<Frame>, Violation> {
        loop {
            let Some(payload) = &mut self.payload else {
                if !self.read_head(input, limit)? {
                    return Ok(None);
                }
                continue;
            };
            if payload.left == 0 {
                match self.finish()? {
                    None => continue,
                    frame => return Ok(frame),
                }
            }
            let count = payload.left.min(input.len()).min(chunk.len());
            if count == 0 {
                return Ok(None);
            }
            let (bytes, rest) = input.split_at(count);
            *input = rest;
            for (at, (to, from)) in chunk.iter_mut().zip(bytes).enumerate() {
                *to = from ^ payload.mask[(payload.at + at) % 4];
            }
            payload.at += count;
            payload.left -= count;
            if payload.opcode < CLOSE {
                return Ok(Some(Frame::Text(count)));
            }
            self.control.extend_from_slice(&chunk[..count]);
        }
    }

    /// Reads on in the head; `true` when it is complete.
    fn read_head(&mut self, input: &mut &[u8], limit: usize) -> Result<bool, Violation> {
        loop {
            let needed = match (self.filled, self.head[1] & 0x7F) {
                (0 | 1, _) => 2,
                (_, 127) => MAX_HEAD,
                (_, 126) => 8,
                _ => 6,
            };
            let count = needed.saturating_sub(self.filled).min(input.len());
            let (bytes, rest) = input.split_at(count);
            *input = rest;
            self.head[self.filled..self.filled + count].copy_from_slice(bytes);
            self.filled += count;
            if self.filled < needed {
                return Ok(false);
            }
            if needed == 2 {
                self.check_start()?;
                continue;
            }
            self.filled = 0;
            let [first, second, rest @ ..] = self.head;
            let length = match second & 0x7F {
                127 => u64::from_be_bytes([
                    rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7],
                ]),
                126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
                short => u64::from(short),
            };
            let mut mask = [0; 4];
            mask.copy_from_slice(&self.head[needed - 4..needed]);
            let opcode = first & 0x0F;
            // A control frame is short, and no part of the message around it.
            if opcode < CLOSE {
                self.count(length, limit)?;
                self.open = true;
            }
            let left = usize::try_from(length).map_err(|_| TOO_LARGE)?;
            self.payload = Some(Payload { opcode, last: first & 0x80 != 0, mask, at: 0, left });
            return Ok(true);
        }
    }

    /// Checks the two bytes with which each frame begins.
    fn check_start(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.head;
        let (last, opcode) = (first & 0x80 != 0, first & 0x0F);
        let wrong = |text| Err(violation(PROTOCOL_ERROR, text));
        if first & 0x70 != 0 {
            return wrong("no extension was agreed on");
        }
        if second & 0x80 == 0 {
            // §5.1
            return wrong("a client's frame is masked");
        }
        match opcode {
            CONTINUATION if !self.open => wrong("there is no message to continue"),
            TEXT | BINARY if self.open => wrong("the last message is not complete"),
            BINARY => Err(violation(UNSUPPORTED, "messages are text")),
            CONTINUATION | TEXT => Ok(()),
            // §5.5
            CLOSE | PING | PONG if !last || second & 0x7F > 125 => {
                wrong("a control frame is short and whole")
            }
            CLOSE | PING | PONG => Ok(()),
            _ => wrong("unknown kind of frame"),
        }
    }

    fn count(&mut self, length: u64, limit: usize) -> Result<(), Violation> {
        self.fragments += 1;
        if self.fragments > MAX_FRAGMENTS {
            return Err(violation(POLICY, "a message of too many frames"));
        }
        let size = usize::try_from(length).ok().and_then(|length| self.size.checked_add(length));
        self.size = size.filter(|size| *size <= limit).ok_or(TOO_LARGE)?;
        Ok(())
    }

    /// The payload is read: what the frame brings, if anything.
    fn finish(&mut self) -> Result<Option<Frame>, Violation> {
        let Some(payload) = self.payload.take() else { return Ok(None) };
        match payload.opcode {
            PING => Ok(Some(Frame::Ping(std::mem::take(&mut self.control)))),
            PONG => {
                self.control = Vec::new();
                Ok(None)
            }
            CLOSE => close_code(&std::mem::take(&mut self.control)).map(|code| Some(Frame::Close(code))),
            _ if payload.last => {
                self.open = false;
                self.size = 0;
                self.fragments = 0;
                Ok(Some(Frame::End))
            }
            _ => Ok(None),
        }
    }
}

const TOO_LARGE: Violation = violation(TOO_BIG, "a message that is too large");

/// §5.5.1, §7.4: nothing, or a code that may be sent and a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let [high, low, reason @ ..] = payload else {
        let empty = payload.is_empty();
        return empty.then_some(None).ok_or(violation(PROTOCOL_ERROR, "half a closing code"));
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(violation(PROTOCOL_ERROR, "a closing code that nobody may send"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(violation(NOT_UTF_8, "the reason is not UTF-8")),
    }
}

/// Bytes of the head of a text message.
pub(super) fn text_head_length(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Writes the head of a text message in one frame; the server masks nothing (§5.1).
pub(super) fn write_text_head(length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short <= 125 => out.push(short),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Writes the answer to a ping (§5.5.3).
pub(super) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    // The reader has seen that there are not more than 125.
    let length = u8::try_from(payload.len()).unwrap_or(0);
    out.extend_from_slice(&[0x80 | PONG, length]);
    out.extend_from_slice(&payload[..usize::from(length)]);
}

/// Writes our part of the closing handshake (§5.5.1).
pub(super) fn write_close(code: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80 | CLOSE, 2]);
    out.extend_from_slice(&code.to_be_bytes());
}

/// A server's frames in words, for tests: texts as they are, `close CODE`, `pong TEXT`.
#[cfg(test)]
pub(super) fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        let (payload, after) = rest.split_at(length);
        bytes = after;
        let text = || String::from_utf8(payload.to_vec()).unwrap();
        texts.push(match first {
            0x81 => text(),
            0x88 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            0x8A => format!("pong {}", text()),
            other => panic!("frame {other:02x}"),
        });
    }
    texts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length @ 126..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = [0x1F, 0xA0, 0x33, 0x7C];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    /// What a reader says to bytes that come in such pieces.
    fn read(bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<String>, Violation> {
        let (mut reader, mut said, mut text) = (FrameReader::default(), Vec::new(), Vec::new());
        let mut chunk = [0; 64];
        for mut input in bytes.chunks(piece) {
            while let Some(frame) = reader.next(&mut input, limit, &mut chunk)? {
                match frame {
                    Frame::Text(count) => text.extend_from_slice(&chunk[..count]),
                    Frame::End => said.push(String::from_utf8(std::mem::take(&mut text)).unwrap()),
                    Frame::Ping(payload) => {
                        said.push(format!("ping {}", String::from_utf8(payload).unwrap()))
                    }
                    Frame::Close(code) => said.push(format!("close {code:?}")),
                }
            }
            assert!(input.is_empty());
        }
        Ok(said)
    }

    #[test]
    fn messages_fragments_and_control_frames_between_them() {
        let long = "y".repeat(70_000);
        let bytes = [
            frame(0x81, b"one"),
            frame(0x01, b"tw"),
            frame(0x89, b"hello"),
            frame(0x00, b""),
            frame(0x8A, b"unasked"),
            frame(0x80, b"o"),
            frame(0x81, b""),
            frame(0x81, long.as_bytes()),
            frame(0x88, &[0x03, 0xE8, b'b']),
        ]
        .concat();
        let expected = ["one", "ping hello", "two", "", &long, "close Some(1000)"];
        for piece in [1, 3, 5_000, bytes.len()] {
            assert_eq!(read(&bytes, piece, 70_000).unwrap(), expected);
        }
    }

    #[test]
    fn what_breaks_the_rules_has_its_code() {
        let mut unmasked = frame(0x81, b"x");
        unmasked[1] &= 0x7F;
        for (bytes, code) in [
            (unmasked, PROTOCOL_ERROR),
            (frame(0xC1, b"x"), PROTOCOL_ERROR),
            (frame(0x83, b"x"), PROTOCOL_ERROR),
            (frame(0x8B, b""), PROTOCOL_ERROR),
            (frame(0x80, b"x"), PROTOCOL_ERROR),
            ([frame(0x01, b"x"), frame(0x81, b"x")].concat(), PROTOCOL_ERROR),
            (frame(0x09, b"x"), PROTOCOL_ERROR),
            (frame(0x89, &[b'x'; 126]), PROTOCOL_ERROR),
            (frame(0x88, b"x"), PROTOCOL_ERROR),
            (frame(0x88, &[0x03, 0xED]), PROTOCOL_ERROR),
            (frame(0x88, &[0x03, 0xE8, 0xFF]), NOT_UTF_8),
            (frame(0x82, b"x"), UNSUPPORTED),
            (frame(0x81, &[b'x'; 101]), TOO_BIG),
            ([frame(0x01, &[b'x'; 60]), frame(0x80, &[b'x'; 41])].concat(), TOO_BIG),
            ([vec![frame(0x01, b"")], vec![frame(0x00, b""); 1_024]].concat().concat(), POLICY),
        ] {
            assert_eq!(read(&bytes, bytes.len(), 100).unwrap_err().code, code, "{:02x?}", &bytes[..2]);
        }
    }

    /// The head is enough: not a byte of a message that is too large is waited for.
    #[test]
    fn a_length_is_refused_before_its_bytes_come() {
        let head = [0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(read(&head, 14, 1_000).unwrap_err(), TOO_LARGE);
        assert_eq!(read(&[0x81, 0xFE, 0x03, 0xE9, 1, 2, 3, 4], 1, 1_000).unwrap_err(), TOO_LARGE);
        assert_eq!(read(&frame(0x81, &[b'x'; 1_000]), 7, 1_000).unwrap().len(), 1);
    }

    proptest! {
        /// Any bytes, cut anywhere: no panic, and the cuts make no difference.
        #[test]
        fn cuts_make_no_difference(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20) {
            let masked: Vec<u8> =
                bytes.iter().enumerate().map(|(at, byte)| if at == 1 { byte | 0x80 } else { *byte }).collect();
            for bytes in [bytes, masked] {
                let say = |piece| {
                    let (mut reader, mut said) = (FrameReader::default(), Vec::new());
                    let mut chunk = [0; 16];
                    for mut input in bytes.chunks(piece) {
                        loop {
                            match reader.next(&mut input, 150, &mut chunk) {
                                Ok(None) => break,
                                Ok(Some(Frame::Text(count))) => said.extend_from_slice(&chunk[..count]),
                                Ok(Some(other)) => said.extend_from_slice(format!("{other:?}").as_bytes()),
                                Err(error) => {
                                    said.extend_from_slice(format!("{error:?}").as_bytes());
                                    return said;
                                }
                            }
                        }
                    }
                    said
                };
                prop_assert_eq!(say(piece), say(200));
            }
        }
    }
}
