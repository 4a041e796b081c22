//! Errors as answers: the code of each and its words, within bounds.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};

use crate::error::{Error, NoMachineIp};
use crate::wire::codes::{ErrorCode, WireError};

/// Bytes of an error's message at most.
const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Seconds after which a client that was refused for want of room may try again.
pub const RETRY_AFTER_S: &str = "1";

/// An error's status and its JSON body.
pub fn status_and_body(error: &Error) -> (StatusCode, Vec<u8>) {
    let ErrorCode { code, status } = error.code();
    (status, body(code, error.to_string()))
}

/// An answer that says what went wrong, without its body.
pub fn begin(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.content_type("application/json");
    if may_try_again(status) {
        response.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    response
}

/// Whether a client that is answered so may try again in a moment.
pub fn may_try_again(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
}

/// An answer that says what went wrong.
pub fn response(error: &Error) -> HttpResponse {
    let (status, body) = status_and_body(error);
    begin(status).body(body)
}

/// Discovery's error while this machine has no address.
pub fn no_machine_ip(error: NoMachineIp) -> HttpResponse {
    let ErrorCode { code, status } = ErrorCode::NO_MACHINE_IP;
    begin(status).body(body(code, error.to_string()))
}

fn body(code: u32, mut message: String) -> Vec<u8> {
    // Many a message repeats what was sent, some with every byte escaped.
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str(" …");
    }
    // A struct of a number and a string always serialises.
    serde_json::to_vec(&WireError { code, message }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;
    use crate::policy::registry::SchedulerSpec;
    use crate::queue::Refusal;
    use crate::types::{BadFunctionName, Cause, FunctionName};
    use std::time::Duration;

    /// Errors with their code, status, whose fault each is, and whether the call may be sent again.
    fn all() -> Vec<(Error, u32, u16, Fault, bool)> {
        use Fault::{Client, Function, Node, Peer};
        let name = || FunctionName::parse("fn-a").expect("a name");
        let limit = Duration::from_secs(1);
        let (why, cause, peer) = (|| "x".to_owned(), || Cause::of("x"), || "10.0.0.1".to_owned());
        let Err(bad_scheduler) = SchedulerSpec::from_words("Nope").build() else {
            panic!("no such scheduler")
        };
        vec![
            (Error::Malformed(why()), 4, 400, Client, false),
            (Error::BodyTooLarge { limit_bytes: 1 }, 4, 413, Client, false),
            (Error::BodyTimedOut { limit }, 4, 408, Client, false),
            (Error::BodyTooSlow, 4, 408, Client, false),
            (Error::HeadTooSlow, 4, 408, Client, true),
            (Error::HeadTooLarge, 4, 431, Client, true),
            (Error::Busy, 400, 429, Node, true),
            (Error::Foreign(why()), 1, 403, Client, true),
            (Error::UnknownPath, 3, 404, Client, true),
            (Error::WrongMethod, 4, 405, Client, true),
            (Error::NotAWebSocket, 4, 426, Client, true),
            (Error::BadFunctionName(BadFunctionName::Length), 100, 400, Client, true),
            (Error::FunctionNotServed(name()), 100, 400, Client, true),
            (Error::UnknownFunction(name()), 3, 404, Client, true),
            (Error::NearFunction(name()), 3, 404, Client, true),
            (Error::FunctionUnreachable { name: name(), cause: cause() }, 5, 502, Function, true),
            (Error::FunctionBroke { name: name(), cause: cause() }, 5, 502, Function, false),
            (Error::AnswerTooLarge { limit_bytes: 1 }, 5, 502, Function, false),
            (Error::FunctionTimedOut { name: name(), limit }, 5, 504, Function, false),
            (Error::CannotSchedule(Refusal::NoSlot), 400, 500, Node, true),
            (Error::RefusedByScheduler, 400, 500, Node, true),
            (Error::Rejected, 401, 503, Node, true),
            (Error::ForwardBroke { peer: peer(), cause: cause() }, 403, 500, Peer, false),
            (Error::PeerAnsweredNothing { peer: peer(), cause: cause() }, 404, 500, Peer, false),
            (Error::NotAMachine, 1, 500, Client, true),
            (Error::BadScheduler(bad_scheduler), 1, 500, Client, true),
            (Error::NoGateway, 300, 500, Client, true),
            (Error::Gateway(cause()), 300, 500, Function, false),
            (Error::AdminClosed, 1, 403, Client, true),
            (Error::NoToken("x"), 1, 401, Client, true),
            (Error::Stopped, 1, 500, Node, false),
            (Error::Internal(cause()), 1, 500, Node, false),
        ]
    }

    #[test]
    fn every_error_has_its_code_and_status_of_the_contract_and_says_whose_it_is() {
        for (error, code, status, fault, retry_is_safe) in all() {
            let got = error.code();
            assert_eq!((got.code, got.status.as_u16()), (code, status), "{error:?}");
            assert_eq!((error.fault(), error.retry_is_safe()), (fault, retry_is_safe), "{error:?}");
            let (_, body) = status_and_body(&error);
            let body: WireError = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((body.code, body.message), (code, error.to_string()));
        }
    }

    #[test]
    fn a_message_repeats_only_so_much_of_what_was_sent() {
        for sent in ["\u{7f}".repeat(100_000), "é".repeat(100_000), "x".to_owned()] {
            let (_, body) = status_and_body(&Error::Malformed(format!("{sent:?}")));
            let body: WireError = serde_json::from_slice(&body).expect("JSON");
            assert!(body.message.len() <= MESSAGE_BYTES_MAX + 4, "{}", body.message.len());
        }
    }

    #[test]
    fn messages_begin_as_those_of_v1() {
        let full = Error::CannotSchedule(Refusal::LineFull).to_string();
        assert!(full.starts_with("Job cannot be scheduled: "));
        assert_eq!(Error::Rejected.to_string(), "Job has been deliberately rejected");
        let malformed = Error::Malformed("x".to_owned()).to_string();
        assert!(malformed.starts_with("Passed input is not correct or malformed"));
    }
}
