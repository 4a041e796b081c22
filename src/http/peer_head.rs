//! The head of a request that another node sends, cut down to what this node looks at.
//!
//! v1's server takes heads of 1 MiB with any number of headers, and a v1 node whose call is refused for
//! its head ends its process; the parser here takes 128 KiB and 96 headers. So of such a head the parser
//! gets the lines that mean something to a call between nodes, and of a target or a tracing id that no
//! function could have the beginning. Whatever is no HTTP stays, for the parser to refuse. Sans-IO: bytes
//! in, bytes out, whatever the pieces in which they come.

use memchr::memchr;

use crate::wire::headers;

/// Bytes of a head at most, as in v1: Go's `DefaultMaxHeaderBytes` and what it adds to it.
pub const HEAD_BYTES_MAX: u64 = (1 << 20) + (4 << 10);
/// Bytes that may be kept of one.
pub const KEPT_BYTES_MAX: usize = 64 << 10;
/// Bytes that are kept of a line at most.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Bytes that are kept of a longer target: more than the longest name has, percent-encoded.
const TARGET_BYTES_MAX: usize = 4 << 10;
/// Bytes of a method at most that is looked at; the longest that is registered has 17.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of the end of a line that are remembered, for the version that stands there.
const END_BYTES: usize = 16;

/// Targets of calls between nodes: those of peer protocol 2, whose headers are the client's, and v1's.
const STREAMED: &[u8] = b"/peer/2/";
const PEER: &[u8] = b"/peer/";
/// What the parser gets in place of a line that means something and is too long: it refuses it.
const NO_HEADER: &[u8] = b": too long\r\n";

/// The headers that are kept beside those of this program: what frames the request, and who sends it.
const KEPT: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Whose a head is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Nobody knows yet.
    #[default]
    Unknown,
    /// A client's.
    Client,
    /// Another node's, by peer protocol 2.
    Streamed,
    /// Another node's, as v1 sends it.
    V1,
}

/// See the module.
#[derive(Debug, Default)]
pub struct PeerHead {
    kind: Kind,
    /// What came while the kind is not known; then the beginning of the line under way.
    start: Vec<u8>,
    /// The last bytes of that line.
    end: Vec<u8>,
    /// Bytes that it has.
    length: usize,
    /// NULs and carriage returns in it.
    odd: usize,
    /// Whether the request line was there.
    began: bool,
    /// Bytes handed on.
    kept: usize,
}

impl PeerHead {
    /// The next bytes begin a head.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Whether another node sends it, as far as is known.
    pub fn is_of_peer(&self) -> bool {
        matches!(self.kind, Kind::Streamed | Kind::V1)
    }

    /// Bytes that it takes in memory once it is cut down; `None`: it is not.
    pub fn kept(&self) -> Option<usize> {
        (self.kind == Kind::V1).then_some(self.kept + self.start.len())
    }

    /// What the parser gets in place of `came`, the next bytes of the head; `None`: just these.
    pub fn take(&mut self, came: &[u8]) -> Option<Vec<u8>> {
        match self.kind {
            Kind::Client | Kind::Streamed => None,
            Kind::V1 => Some(self.lines(came)),
            Kind::Unknown if self.start.is_empty() => match self.look(came) {
                Kind::V1 => Some(self.first_lines(came)),
                Kind::Client | Kind::Streamed => None,
                // Empty lines; the parser skips them.
                Kind::Unknown if without_empty_lines(came).is_empty() => None,
                Kind::Unknown => {
                    let start = without_empty_lines(came);
                    self.start.extend_from_slice(start);
                    Some(came.strip_suffix(start).unwrap_or_default().to_vec())
                }
            },
            Kind::Unknown => {
                let mut all = std::mem::take(&mut self.start);
                all.extend_from_slice(came);
                Some(match self.look(&all) {
                    Kind::V1 => self.first_lines(&all),
                    Kind::Client | Kind::Streamed => all,
                    Kind::Unknown => {
                        self.start = all;
                        Vec::new()
                    }
                })
            }
        }
    }

    /// The kind of head that begins with `all`, as far as it can be told.
    fn look(&mut self, all: &[u8]) -> Kind {
        let start = without_empty_lines(all);
        let method = start.get(..METHOD_BYTES_MAX).unwrap_or(start);
        let space = memchr(b' ', method)
            .filter(|end| memchr(b'\n', method.get(..*end).unwrap_or_default()).is_none());
        let target = space.map(|end| start.get(end + 1..).unwrap_or_default());
        self.kind = match target {
            Some(target) if target.starts_with(STREAMED) => Kind::Streamed,
            Some(target) if STREAMED.starts_with(target) => Kind::Unknown,
            Some(target) if target.starts_with(PEER) => Kind::V1,
            None if method.len() < METHOD_BYTES_MAX && memchr(b'\n', method).is_none() => {
                Kind::Unknown
            }
            _ => Kind::Client,
        };
        self.kind
    }

    /// The beginning of a head; the parser skips the empty lines before it.
    fn first_lines(&mut self, all: &[u8]) -> Vec<u8> {
        let start = without_empty_lines(all);
        let before = all.strip_suffix(start).unwrap_or_default();
        [before, &self.lines(start)].concat()
    }

    fn lines(&mut self, came: &[u8]) -> Vec<u8> {
        let (mut kept, mut rest) = (Vec::new(), came);
        loop {
            let end = memchr(b'\n', rest);
            let (part, behind) =
                rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, &[]));
            self.line_goes_on(part);
            if end.is_none() {
                break;
            }
            self.line_ends(&mut kept);
            rest = behind.get(1..).unwrap_or_default();
        }
        self.kept += kept.len();
        kept
    }

    fn line_goes_on(&mut self, part: &[u8]) {
        self.length += part.len();
        self.odd += part.iter().filter(|c| matches!(c, 0 | b'\r')).count();
        let room = LINE_BYTES_MAX.saturating_sub(self.start.len());
        self.start.extend_from_slice(part.get(..room).unwrap_or(part));
        let last = part.len().saturating_sub(END_BYTES);
        self.end.extend_from_slice(part.get(last..).unwrap_or_default());
        let surplus = self.end.len().saturating_sub(END_BYTES);
        self.end.drain(..surplus);
    }

    /// Adds to `kept` what is kept of the line that is whole now.
    fn line_ends(&mut self, kept: &mut Vec<u8>) {
        let mut line = std::mem::take(&mut self.start);
        let mut end = std::mem::take(&mut self.end);
        let (mut length, mut odd) =
            (std::mem::take(&mut self.length), std::mem::take(&mut self.odd));
        if end.pop_if(|last| *last == b'\r').is_some() {
            length -= 1;
            odd -= 1;
            line.truncate(length);
        }
        let is_whole = line.len() == length;
        match (self.began, length) {
            (_, 0) => {}
            (false, _) => {
                self.began = true;
                match (is_whole, memchr(b' ', &line), end.iter().rposition(|c| *c == b' ')) {
                    (true, ..) => kept.extend_from_slice(&line),
                    // The version is in the end.
                    (false, Some(method), Some(version)) if odd == 0 => {
                        line.truncate(method + 1 + TARGET_BYTES_MAX);
                        kept.extend_from_slice(&line);
                        kept.extend_from_slice(end.get(version..).unwrap_or_default());
                    }
                    _ => return kept.extend_from_slice(NO_HEADER),
                }
            }
            (true, _) => match Line::of(&line, odd > 0) {
                Line::Dropped => return,
                Line::Kept | Line::TracingId if is_whole => kept.extend_from_slice(&line),
                Line::TracingId => kept.extend_from_slice(whole_characters(&line)),
                Line::Kept => return kept.extend_from_slice(NO_HEADER),
            },
        }
        kept.extend_from_slice(b"\r\n");
    }
}

/// What becomes of a header's line.
enum Line {
    Dropped,
    /// It is needed whole, or it is none and the parser is to say so.
    Kept,
    /// Its beginning will do.
    TracingId,
}

impl Line {
    fn of(line: &[u8], is_odd: bool) -> Self {
        let Some(name) = memchr(b':', line).and_then(|end| line.get(..end)) else {
            return Self::Kept;
        };
        // RFC 9110, 5.6.2.
        let is_token = |c: &u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(c);
        if is_odd || name.is_empty() || !name.iter().all(is_token) {
            return Self::Kept;
        }
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let ours = [&headers::TASK_TYPE, &headers::DEADLINE];
        if is(headers::TRACING_ID.as_str()) {
            Self::TracingId
        } else if KEPT.iter().any(|kept| is(kept)) || ours.iter().any(|kept| is(kept.as_str())) {
            Self::Kept
        } else {
            Self::Dropped
        }
    }
}

/// `all` without the empty lines that it begins with.
fn without_empty_lines(all: &[u8]) -> &[u8] {
    let start = all.iter().position(|c| !matches!(c, b'\r' | b'\n'));
    start.and_then(|start| all.get(start..)).unwrap_or_default()
}

/// `line` without the part of a character at its end.
fn whole_characters(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Err(why) if why.error_len().is_none() => line.get(..why.valid_up_to()).unwrap_or(line),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the parser gets of `head` in pieces of that size.
    fn given(head: &[u8], size: usize) -> Vec<u8> {
        let mut peer_head = PeerHead::default();
        let parts = head.chunks(size).map(|part| match peer_head.take(part) {
            Some(instead) => instead,
            None => part.to_vec(),
        });
        parts.collect::<Vec<_>>().concat()
    }

    fn kept(head: &str) -> String {
        let whole = given(head.as_bytes(), head.len());
        for size in [1, 2, 3, 7, 19, 1000] {
            assert_eq!(given(head.as_bytes(), size), whole, "in pieces of {size}");
        }
        String::from_utf8(whole).expect("text")
    }

    #[test]
    fn a_clients_head_and_one_of_protocol_2_stay_as_they_are() {
        for head in [
            "GET / HTTP/1.1\r\nX-A: 1\r\n\r\n",
            "\r\n\nPOST /function/peer/ HTTP/1.1\r\nX-A: 1\r\n\r\n",
            "POST /pee HTTP/1.1\r\nX-A: 1\r\n\r\n",
            "POST /peer HTTP/1.1\r\nX-A: 1\r\n\r\n",
            "POST /peer/2/function/f HTTP/1.1\r\nX-A: 1\r\n\r\n",
            "x\n\n",
            "\n\n",
            "an-extraordinarily-long-method-that-is-none /peer/function/f HTTP/1.1\r\n\r\n",
            "POST  /peer/function/f HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(kept(head), head);
        }
    }

    #[test]
    fn of_a_v1_nodes_head_what_a_call_needs_is_kept() {
        let head = "\r\nPOST /peer/function/f HTTP/1.1\r\nHost: n\r\nUser-Agent: Machine\nX-A: 1\r\n\
            content-length: 3\r\nAccept-Encoding: gzip\r\nX-P2pfaas-Scheduler-Task-Tracing-Id: t\r\n\
            Cookie: a\r\nConnection: close\r\n\r\n";
        let want = "\r\nPOST /peer/function/f HTTP/1.1\r\nHost: n\r\nUser-Agent: Machine\r\n\
            content-length: 3\r\nX-P2pfaas-Scheduler-Task-Tracing-Id: t\r\nConnection: close\r\n\r\n";
        assert_eq!(kept(head), want);
        // What is no text, where nothing was cut off, is the parser's to judge.
        let id = b"GET /peer/f HTTP/1.1\r\nX-P2pfaas-Scheduler-Task-Tracing-Id: \xc3\r\n\r\n";
        assert_eq!(given(id, 7), id);
        for target in ["/peer/2", "/peer/2x", "/peer/", "/peer/function/f/2/"] {
            let head = format!("GET {target} HTTP/1.1\r\nX-A: 1\r\n\r\n");
            assert_eq!(kept(&head), format!("GET {target} HTTP/1.1\r\n\r\n"));
        }
    }

    #[test]
    fn long_targets_and_tracing_ids_are_cut_and_other_long_lines_refused() {
        let long = "é".repeat(100_000);
        let target = format!("/peer/function/{}", "a".repeat(66_000));
        let head = format!(
            "POST {target} HTTP/1.1\r\nX-Long: {long}\r\nx-p2pfaas-scheduler-TASK-tracing-id: {long}\r\n\r\n"
        );
        let kept = kept(&head);
        let mut lines = kept.split("\r\n");
        let line = lines.next().expect("a line");
        assert_eq!(line, format!("POST {} HTTP/1.1", &target[..TARGET_BYTES_MAX]));
        let id = lines.next().and_then(|line| line.split_once(": ")).expect("an id").1;
        assert!(id.len() > LINE_BYTES_MAX - 99 && id.chars().all(|c| c == 'é'), "{}", id.len());
        assert_eq!(lines.collect::<Vec<_>>(), ["", ""]);
        let head = format!(
            "POST /peer/function/f HTTP/1.1\r\nContent-Length: 3{}\r\n\r\n",
            " ".repeat(9000)
        );
        assert!(super::tests::kept(&head).ends_with("\r\n: too long\r\n\r\n"));
    }

    #[test]
    fn what_is_no_http_stays_for_the_parser_to_refuse() {
        for line in [
            "no colon",
            ": no name",
            "Content-Length : 3",
            " folded",
            "X-\u{e9}: 1",
            "X: a\rb",
            "X: \0",
        ] {
            let head = format!("POST /peer/function/f HTTP/1.1\r\n{line}\r\n\r\n");
            assert_eq!(kept(&head), head, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            lines in prop::collection::vec("[ -~]{0,12}(: )?[ -~é\r\0]{0,20}", 0..8),
            target in "/pee?r?/?2?/?[a-z]{0,3}",
            sizes in 1..40_usize,
        ) {
            let head = format!("POST {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
            prop_assert_eq!(given(head.as_bytes(), sizes), given(head.as_bytes(), head.len()));
        }

        #[test]
        fn no_more_is_handed_on_than_came(head: Vec<u8>, size in 1..40_usize) {
            let head = [b"GET /peer/", &head[..]].concat();
            // Each line may gain its carriage return, or become one that is refused.
            let lines = head.iter().filter(|c| **c == b'\n').count();
            prop_assert!(given(&head, size).len() <= head.len() + lines);
        }
    }
}
