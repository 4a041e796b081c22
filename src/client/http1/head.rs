//! Heads of requests and answers, as bytes: writing the one, reading the other (RFC 9112). Sans-IO.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;

/// Bytes of an answer's head at most.
pub(super) const HEAD_BYTES_MAX: usize = 128 << 10;
/// Headers of an answer at most.
const HEADERS_MAX: usize = 256;

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// After so many bytes; 0: there is none.
    Length(u64),
    /// After its last chunk.
    Chunks,
    /// With its connection.
    Connection,
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) end: BodyEnd,
    /// Whether the connection may be used again.
    pub(super) keeps: bool,
}

/// A request's head.
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) end: BodyEnd,
    /// Whether it asks to become a WebSocket.
    pub(super) upgrades: bool,
    /// Whether its body waits until it is wanted.
    pub(super) asks_first: bool,
}

impl RequestHead<'_> {
    /// The head as it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[
            self.method.as_str().as_bytes(),
            b" ",
            self.target.as_bytes(),
            b" HTTP/1.1\r\nhost: ",
        ]);
        put(&[self.host.as_bytes(), b"\r\n"]);
        for (name, value) in self.headers {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        if self.upgrades {
            put(&[b"connection: upgrade\r\nupgrade: websocket\r\n"]);
        }
        if self.asks_first {
            put(&[b"expect: 100-continue\r\n"]);
        }
        match self.end {
            BodyEnd::Chunks => put(&[b"transfer-encoding: chunked\r\n"]),
            // A request without a body tells so only where its method usually has one.
            BodyEnd::Length(0) if !has_usually_a_body(self.method) => {}
            BodyEnd::Length(bytes) => {
                put(&[b"content-length: ", bytes.to_string().as_bytes(), b"\r\n"]);
            }
            BodyEnd::Connection => {}
        }
        put(&[b"\r\n"]);
        out
    }
}

fn has_usually_a_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Reads an answer's head from the beginning of `came`, and how long it is. `None`: it is not whole.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(came: &Bytes, method: &Method) -> Result<Option<(AnswerHead, usize)>, String> {
    let mut room = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // As browsers and other proxies do: servers exist that send them.
    config.allow_spaces_after_header_name_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut parsed, came, &mut room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if came.len() > HEAD_BYTES_MAX => {
            return Err(format!("its head is larger than {HEAD_BYTES_MAX} bytes"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(why) => return Err(format!("its head cannot be read: {why}")),
    };
    let code = parsed.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| format!("its status is {code}"))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 8);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        // The value stays where it came, and is not copied.
        let value = HeaderValue::from_maybe_shared(came.slice_ref(line.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(format!("its header {:?} cannot be read", line.name));
        };
        headers.append(name, value);
    }
    let (end, certain) = body_end(&headers, status, method)?;
    let told = |token: &str| tokens(&headers, &header::CONNECTION).any(|t| t == token);
    let keeps = match parsed.version {
        Some(1) => !told("close"),
        _ => told("keep-alive"),
    };
    let keeps = keeps && certain && end != BodyEnd::Connection;
    Ok(Some((AnswerHead { status, headers, end, keeps }, length)))
}

/// The tokens of a header that lists some, in lower case, of all its lines.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = String> + 'a {
    let lines = headers.get_all(name).filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

/// Where the body of an answer ends (RFC 9112, 6.3), and whether that is beyond doubt.
fn body_end(
    headers: &HeaderMap,
    status: StatusCode,
    method: &Method,
) -> Result<(BodyEnd, bool), String> {
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        return Ok((BodyEnd::Length(0), true));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = tokens(headers, &header::TRANSFER_ENCODING);
        let (first, more) = (codings.next(), codings.next().is_some());
        let chunked = first.as_deref() == Some("chunked");
        // Nobody asked for others (TE), and who got the bytes without the name could not read them.
        if more || !(chunked || first.as_deref() == Some("identity")) {
            return Err("its transfer coding is not chunked alone".to_owned());
        }
        // Both a length and chunks: the chunks count, and the connection is not trusted again.
        let certain = !headers.contains_key(header::CONTENT_LENGTH);
        return Ok((if chunked { BodyEnd::Chunks } else { BodyEnd::Connection }, certain));
    }
    let mut lengths = tokens(headers, &header::CONTENT_LENGTH);
    let Some(first) = lengths.next() else { return Ok((BodyEnd::Connection, true)) };
    if lengths.any(|other| other != first) {
        return Err("it tells two lengths".to_owned());
    }
    let digits = first.bytes().all(|byte| byte.is_ascii_digit());
    match first.parse() {
        Ok(length) if digits => Ok((BodyEnd::Length(length), true)),
        _ => Err(format!("its length is {first:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &'static str, method: Method) -> Result<(BodyEnd, bool), String> {
        let came = Bytes::from_static(text.as_bytes());
        read(&came, &method).map(|read| {
            let (head, length) = read.expect("whole");
            assert_eq!(length, text.find("\r\n\r\n").expect("an end") + 4);
            (head.end, head.keeps)
        })
    }

    #[test]
    fn where_a_body_ends_is_as_rfc_9112_says() {
        use BodyEnd::{Chunks, Connection, Length};
        for (head, method, want) in [
            ("1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Method::GET, (Length(5), true)),
            ("1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Method::GET, (Length(5), true)),
            ("1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Method::HEAD, (Length(0), true)),
            ("1.1 304 X\r\ncontent-length: 5\r\n\r\n", Method::GET, (Length(0), true)),
            ("1.1 204 X\r\n\r\n", Method::GET, (Length(0), true)),
            ("1.1 103 X\r\nlink: </a>\r\n\r\n", Method::GET, (Length(0), true)),
            ("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Method::GET, (Chunks, true)),
            ("1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", Method::GET, (Connection, false)),
            (
                "1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
                Method::GET,
                (Chunks, false),
            ),
            ("1.1 200 OK\r\n\r\n", Method::GET, (Connection, false)),
            (
                "1.1 200 OK\r\nconnection: x\r\nconnection: Close\r\ncontent-length: 1\r\n\r\n",
                Method::GET,
                (Length(1), false),
            ),
            ("1.0 200 OK\r\ncontent-length: 1\r\n\r\n", Method::GET, (Length(1), false)),
            (
                "1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n",
                Method::GET,
                (Length(1), true),
            ),
            ("1.1 200\r\ncontent-length: 1\r\n\r\n", Method::GET, (Length(1), true)),
        ] {
            let whole = Box::leak(format!("HTTP/{head}").into_boxed_str());
            assert_eq!(answer(whole, method), Ok(want), "{head:?}");
        }
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(answer(head, Method::GET).is_err(), "{head:?}");
        }
    }

    #[test]
    fn a_head_is_read_once_it_is_whole_and_not_beyond_its_bounds() {
        let whole =
            "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n";
        for cut in 0..whole.len() {
            let part = Bytes::copy_from_slice(&whole.as_bytes()[..cut]);
            assert!(read(&part, &Method::GET).expect("no error yet").is_none(), "{cut}");
        }
        let (head, _) = read(&Bytes::from(whole), &Method::GET).expect("good").expect("whole");
        let cookies: Vec<_> = head.headers.get_all(header::SET_COOKIE).collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert!(read(&Bytes::from(endless), &Method::GET).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(HEADERS_MAX + 1));
        assert!(read(&Bytes::from(many), &Method::GET).is_err());
    }

    #[test]
    fn a_request_tells_its_length_where_it_has_one() {
        let head = |method: Method, end| {
            let headers = HeaderMap::new();
            let head = RequestHead {
                method: &method,
                target: "/a?b",
                host: "h:1",
                headers: &headers,
                end,
                upgrades: false,
                asks_first: false,
            };
            String::from_utf8(head.bytes()).expect("text")
        };
        let get = "GET /a?b HTTP/1.1\r\nhost: h:1\r\n\r\n";
        assert_eq!(head(Method::GET, BodyEnd::Length(0)), get);
        assert!(head(Method::POST, BodyEnd::Length(0)).contains("content-length: 0\r\n"));
        assert!(head(Method::GET, BodyEnd::Length(3)).contains("content-length: 3\r\n"));
        assert!(head(Method::PUT, BodyEnd::Chunks).contains("transfer-encoding: chunked\r\n"));
    }
}
