//! Where a request's head and body end in what a client sends. The HTTP parser has the last word on
//! what is well-formed; this follows along to tell how much of what came belongs to the request under
//! way, so that the parser is given one at a time ([`super::guarded`]). Sans-IO: bytes in, counts out,
//! whatever the pieces in which they come. RFC 9112, sections 2.2, 6 and 7.1.

use memchr::memchr;

/// Bytes of a line that are looked at; the names and values that matter are shorter.
const LINE_BYTES: usize = 64;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A line of a head.
    HeadLine,
    /// So many bytes of a body of known length.
    Length(u64),
    /// The line with a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// A line behind the last chunk.
    Trailer,
    /// Whatever it is, it belongs to this request: a WebSocket's frames, or what the parser will refuse.
    Endless,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Framing {
    next: Next,
    line: Line,
    /// Whether the request line was there; empty lines before it are skipped.
    began: bool,
    /// What the head says of the body.
    body: Next,
}

impl Default for Framing {
    fn default() -> Self {
        let line = Line { start: [0; LINE_BYTES], length: 0 };
        Self { next: Next::HeadLine, line, began: false, body: Next::Length(0) }
    }
}

/// The line under way, if it did not come in one piece: its start, and how many bytes it has.
#[derive(Clone, Debug)]
struct Line {
    start: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    /// Takes bytes up to the end of the line; the line without its end, as far as it is looked at,
    /// once it is whole.
    fn take<'a>(&'a mut self, came: &'a [u8], taken: &mut usize) -> Option<&'a [u8]> {
        let rest = came.get(*taken..).unwrap_or_default();
        let end = memchr(b'\n', rest);
        let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        *taken += part.len() + usize::from(end.is_some());
        // Most lines come in one piece, and are looked at where they are.
        if end.is_some() && self.length == 0 {
            return Some(Self::text(part, part.len()));
        }
        let room = self.start.get_mut(self.length.min(LINE_BYTES)..).unwrap_or_default();
        let kept = room.len().min(part.len());
        if let (Some(room), Some(part)) = (room.get_mut(..kept), part.get(..kept)) {
            room.copy_from_slice(part);
        }
        self.length += part.len();
        end?;
        Some(Self::text(&self.start, std::mem::take(&mut self.length)))
    }

    /// Of a line of `length` bytes what is looked at.
    fn text(line: &[u8], length: usize) -> &[u8] {
        let start = line.get(..length.min(LINE_BYTES)).unwrap_or_default();
        // One that is longer than what is looked at does not end here.
        if length > LINE_BYTES { start } else { start.strip_suffix(b"\r").unwrap_or(start) }
    }
}

impl Framing {
    /// Whether a whole request, head and body, is in `came`; of a WebSocket's the head is all.
    pub fn holds_whole(came: &[u8]) -> bool {
        let mut framing = Self::default();
        let of_head = framing.head(came);
        framing.body(came.get(of_head..).unwrap_or_default());
        matches!(framing.next, Next::Length(0) | Next::Endless)
    }

    /// The next bytes begin a request.
    pub fn begin(&mut self) {
        (self.next, self.began, self.body) = (Next::HeadLine, false, Next::Length(0));
        self.line.length = 0;
    }

    /// Whether the head under way has come to its end.
    pub fn head_ended(&self) -> bool {
        self.next != Next::HeadLine
    }

    /// Whether bytes of a body of known length are still to come.
    pub fn has_length_left(&self) -> bool {
        matches!(self.next, Next::Length(1..))
    }

    /// Whether the length of the body is known from its head.
    pub fn has_length(&self) -> bool {
        matches!(self.next, Next::Length(_))
    }

    /// How many of the bytes that `came` belong to the head under way.
    pub fn head(&mut self, came: &[u8]) -> usize {
        let mut taken = 0;
        while self.next == Next::HeadLine
            && let Some(line) = self.line.take(came, &mut taken)
        {
            match (line, self.began) {
                (b"", true) => self.next = self.body,
                (b"", false) => {}
                (header, true) => self.body = body_by(header, self.body),
                (_, false) => self.began = true,
            }
        }
        taken
    }

    /// How many of the bytes that `came` belong to the body under way.
    pub fn body(&mut self, came: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let left = came.len() - taken;
            match &mut self.next {
                Next::Endless => return came.len(),
                Next::HeadLine | Next::Length(0) => return taken,
                Next::Length(bytes) | Next::Chunk(bytes) => {
                    let passed = (left as u64).min(*bytes);
                    *bytes -= passed;
                    taken += passed as usize;
                    match self.next {
                        Next::Chunk(0) => self.next = Next::ChunkEnd,
                        _ => return taken,
                    }
                }
                Next::ChunkSize | Next::ChunkEnd | Next::Trailer => {
                    let next = self.next;
                    let Some(line) = self.line.take(came, &mut taken) else { return taken };
                    self.next = match (next, line) {
                        (Next::ChunkSize, line) => chunk(line),
                        (Next::Trailer, b"") => Next::Length(0),
                        (Next::Trailer, _) => Next::Trailer,
                        (_, b"") => Next::ChunkSize,
                        _ => Next::Endless,
                    };
                }
            }
        }
    }
}

/// What a head says of the body after this line of it, and before.
fn body_by(header: &[u8], before: Next) -> Next {
    let value = |name: &[u8]| {
        let (start, value) = header.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    };
    if value(b"transfer-encoding:").is_some() {
        Next::ChunkSize
    } else if value(b"upgrade:").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket")) {
        Next::Endless
    } else if let (Some(length), Next::Length(_)) = (value(b"content-length:"), before) {
        let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
        length.map_or(Next::Endless, Next::Length)
    } else {
        before
    }
}

/// What follows the line of a chunk's size.
fn chunk(line: &[u8]) -> Next {
    let digits = line.iter().take_while(|c| c.is_ascii_hexdigit()).count();
    let size = line.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
    match size.and_then(|size| u64::from_str_radix(size, 16).ok()) {
        Some(0) => Next::Trailer,
        Some(bytes) => Next::Chunk(bytes),
        None => Next::Endless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts what came into requests, as the parser would be given them: head and body of each.
    fn requests(pieces: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut framing, mut all, mut rest) = (Framing::default(), Vec::new(), Vec::new());
        let (mut head, mut body) = (Vec::new(), Vec::new());
        for piece in pieces {
            rest.extend_from_slice(piece);
            loop {
                let of_head = if framing.head_ended() { 0 } else { framing.head(&rest) };
                head.extend(rest.drain(..of_head));
                let of_body = framing.body(&rest);
                body.extend(rest.drain(..of_body));
                let over = framing.head_ended() && framing.next == Next::Length(0);
                if over {
                    all.push((std::mem::take(&mut head), std::mem::take(&mut body)));
                    framing.begin();
                } else if of_head + of_body == 0 || rest.is_empty() {
                    break;
                }
            }
        }
        all
    }

    fn a_request() -> impl Strategy<Value = (String, String)> {
        let body = "[a-z\\r\\n]{0,300}";
        let more = prop_oneof![
            Just(""),
            Just("Content-Lengthy: 7\r\n"),
            Just("X: content-length: 9\r\n"),
            Just("Upgrade: h2c\n"),
            Just(
                "Cookie: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
            ),
        ];
        (body, 0..5_u8, more, 1..40_usize).prop_map(|(body, form, more, step)| {
            let start = format!("POST /function/f HTTP/1.1\r\nHost: x\r\n{more}");
            let chunks: String = body
                .as_bytes()
                .chunks(step)
                .map(|part| {
                    let part = String::from_utf8_lossy(part);
                    format!("{:X};x=\"y\"\r\n{part}\r\n", part.len())
                })
                .collect();
            match form {
                0 => (format!("{start}\r\n"), String::new()),
                1 => (format!("{start}CONTENT-length:{}\r\n\r\n", body.len()), body),
                2 => (format!("{start}Content-Length:  {} \n\n", body.len()), body),
                3 => (
                    format!("\r\n{start}Transfer-Encoding: chunked\r\n\r\n"),
                    format!("{chunks}0\r\n\r\n"),
                ),
                _ => (
                    format!("{start}transfer-encoding:chunked\n\r\n"),
                    format!("{chunks}000\r\nTrailer: x\r\n\r\n"),
                ),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn requests_end_where_they_end_whatever_the_pieces(
            wanted in prop::collection::vec(a_request(), 1..6),
            cuts in prop::collection::vec(1..60_usize, 1..8),
        ) {
            for (head, body) in &wanted {
                let one = format!("{head}{body}");
                prop_assert!(Framing::holds_whole(one.as_bytes()));
                prop_assert!(!Framing::holds_whole(&one.as_bytes()[..one.len() - 1]));
            }
            let whole: String = wanted.iter().map(|(head, body)| format!("{head}{body}")).collect();
            let (mut pieces, mut rest) = (Vec::new(), whole.as_bytes());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                pieces.push(piece);
                rest = after;
            }
            let wanted: Vec<_> =
                wanted.into_iter().map(|(head, body)| (head.into_bytes(), body.into_bytes())).collect();
            prop_assert_eq!(requests(&pieces), wanted);
        }

        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_came(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20),
        ) {
            let mut framing = Framing::default();
            for piece in pieces {
                Framing::holds_whole(&piece);
                let of_head = framing.head(&piece);
                prop_assert!(of_head <= piece.len());
                prop_assert!(framing.body(&piece[of_head..]) <= piece.len() - of_head);
            }
        }
    }

    #[test]
    fn what_only_the_parser_can_judge_belongs_to_the_request() {
        for head in [
            "GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            let mut framing = Framing::default();
            let of_head = framing.head(head.as_bytes());
            framing.body(&head.as_bytes()[of_head..]);
            assert_eq!(framing.body(&[0; 1000]), 1000, "{head}");
        }
    }
}
