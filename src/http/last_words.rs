//! What a client reads whose request no handler has seen: its head cannot be read, is too large or too
//! slow, or there is no room for it. Whoever calls as another node gets it in the form of a peer's
//! answer, since a v1 node ends its process over any other ([`super::peer_api`]).

use std::fmt::Write;

use super::errors::{self, RETRY_AFTER_S};
use super::peer_api;
use crate::error::Error;
use crate::wire::PeerHop;
use crate::wire::headers;

/// Tells who this node is, as one that a call has passed.
pub type TellMachine = dyn Fn() -> PeerHop + Send + Sync;

/// Whether calls between nodes have this path.
pub fn is_of_peers(path: &str) -> bool {
    path.starts_with("/peer/")
}

/// An answer as it goes out, after which the connection ends; in a peer's form if this is `machine`.
pub fn written(error: &Error, machine: Option<PeerHop>) -> Vec<u8> {
    let of_peer = machine.is_some();
    let (status, body) = match machine {
        Some(machine) => peer_api::refusal_message(error, machine),
        None => errors::status_and_body(error),
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    // Writing to a string does not fail.
    if errors::may_try_again(status) {
        let _ = write!(head, "retry-after: {RETRY_AFTER_S}\r\n");
    }
    if !of_peer {
        let _ = write!(head, "{}: {}\r\n", headers::VERSION.as_str(), crate::VERSION);
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

/// What went wrong by an answer that the server's parser has made by itself; `None`: it is another.
pub fn of_parser(answer: &[u8]) -> Option<Error> {
    let status = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 "))?;
    // It says nothing but the status.
    answer.ends_with(b"\r\n\r\n").then_some(())?;
    match status.get(..3)? {
        b"400" => Some(Error::Malformed("the request's head is no HTTP/1.1".to_owned())),
        b"408" => Some(Error::HeadTooSlow),
        b"431" => Some(Error::HeadTooLarge),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn each_has_the_form_that_its_reader_needs() {
        for (error, status) in [
            (Error::HeadTooLarge, "431 Request Header Fields Too Large"),
            (Error::HeadTooSlow, "408 Request Timeout"),
            (Error::Busy, "429 Too Many Requests"),
            (Error::Malformed("x".to_owned()), "400 Bad Request"),
        ] {
            let hop = PeerHop { machine_id: "n".to_owned(), ..PeerHop::default() };
            for machine in [None, Some(hop)] {
                let answer = String::from_utf8(written(&error, machine.clone())).expect("text");
                let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
                assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
                assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
                assert_eq!(head.contains("retry-after"), error == Error::Busy);
                assert_eq!(head.contains("x-p2pfaas"), machine.is_none(), "v1 copies such headers");
                let body: Value = serde_json::from_str(body).expect("JSON");
                match machine {
                    None => assert_eq!(body["code"], error.code().code),
                    Some(_) => {
                        assert_eq!(body["peers_list"][0]["machine_id"], "n");
                        assert_eq!(body["status_code"].to_string(), status[..3]);
                    }
                }
            }
        }
    }

    #[test]
    fn only_the_parsers_own_answers_are_replaced() {
        let bare = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(of_parser(bare("431 Too Large").as_bytes()), Some(Error::HeadTooLarge));
        assert_eq!(of_parser(bare("408 Timeout").as_bytes()), Some(Error::HeadTooSlow));
        assert!(matches!(of_parser(bare("400 Bad").as_bytes()), Some(Error::Malformed(_))));
        for other in ["", "HTTP/1.1", "HTTP/1.1 400 Bad\r\ncontent-length: 1\r\n\r\nx"] {
            assert_eq!(of_parser(other.as_bytes()), None, "{other}");
        }
        for other in ["100 Continue", "200 OK", "413 Payload Too Large"] {
            assert_eq!(of_parser(bare(other).as_bytes()), None, "{other}");
        }
    }
}
