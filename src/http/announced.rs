//! What a request's head, or a piece of one, tells before the parser has looked at it: where it ends,
//! and how much body follows.

use memchr::memchr;

/// What is known of the body of the request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// It has none.
    None,
    /// Its bytes that have not come yet.
    Length(u64),
    /// It ends by itself: chunks, or a WebSocket's frames.
    Open,
    /// The head came in pieces that did not tell.
    Unknown,
}

/// Where the head that `came` goes on with ends: after an empty line. `before` are the two bytes that
/// came before.
pub(super) fn end_of_head(before: [u8; 2], came: &[u8]) -> Option<usize> {
    // A line end, then at once another; the parser takes `\n` for `\r\n`.
    let at = |i: usize| came.get(i).copied();
    match (before, at(0), at(1)) {
        ([_, b'\n'], Some(b'\n'), _) => return Some(1),
        ([_, b'\n'], Some(b'\r'), Some(b'\n')) => return Some(2),
        ([b'\n', b'\r'], Some(b'\n'), _) => return Some(1),
        _ => {}
    }
    let mut from = 0;
    while let Some(found) = memchr(b'\n', came.get(from..)?) {
        let line = from + found + 1;
        match (at(line), at(line + 1)) {
            (Some(b'\n'), _) => return Some(line + 1),
            (Some(b'\r'), Some(b'\n')) => return Some(line + 2),
            _ => from = line,
        }
    }
    None
}

/// What a head, or a piece of one, says of its body. The parser has the last word on what is
/// well-formed; this says only how much it is given at once.
pub(super) fn body_of(head: &[u8]) -> Body {
    let mut body = Body::None;
    let mut from = 0;
    while let Some(found) = memchr(b'\n', head.get(from..).unwrap_or_default()) {
        from += found + 1;
        let rest = head.get(from..).unwrap_or_default();
        if rest.first().is_none_or(|c| !matches!(c | 0x20, b'c' | b't' | b'u')) {
            continue;
        }
        // What is cut off here may go on in the next piece.
        let Some(line) = memchr(b'\n', rest).and_then(|end| rest.get(..end)) else { break };
        let value = |name: &[u8]| {
            let (start, value) = line.split_at_checked(name.len())?;
            start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
        };
        if value(b"transfer-encoding:").is_some()
            || value(b"upgrade:").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))
        {
            return Body::Open;
        }
        if let Some(value) = value(b"content-length:") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            body = length.map_or(Body::Unknown, Body::Length);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_after_an_empty_line_wherever_it_is_cut() {
        for head in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            let stream = format!("{head}GET /b");
            assert_eq!(end_of_head([0; 2], stream.as_bytes()), Some(head.len()));
            for cut in 2..head.len() {
                let (first, rest) = stream.as_bytes().split_at(cut);
                let &[.., a, b] = first else { panic!("two bytes") };
                assert_eq!(end_of_head([0; 2], first), None);
                assert_eq!(end_of_head([a, b], rest), Some(head.len() - cut), "{head:?} {cut}");
            }
        }
    }

    #[test]
    fn a_length_that_is_cut_off_is_not_taken_for_another() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 1024\r\n\r\n";
        for cut in 1..head.len() {
            let told = body_of(head.get(..cut).unwrap_or_default().as_bytes());
            assert!(matches!(told, Body::None | Body::Length(1024)), "{cut}: {told:?}");
        }
        assert_eq!(body_of(head.as_bytes()), Body::Length(1024));
        assert_eq!(body_of(b"GET / HTTP/1.1\r\nupgrade: WebSocket\r\n"), Body::Open);
    }
}
