//! The token that changes bring, in `Authorization` (RFC 6750, 2.1).

use actix_web::http::header::{self, HeaderMap};

use crate::config::AdminToken;
use crate::error::Error;

const SCHEME: &[u8] = b"bearer";

/// Whether a request with these headers has the token that the node wants for changes, if it wants one.
///
/// # Errors
/// It has none, or another.
pub fn check_token(from: &HeaderMap, token: &AdminToken) -> Result<(), Error> {
    if !token.is_wanted() {
        return Ok(());
    }
    let mut given = from.get_all(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let bearer = match (given.next(), given.next()) {
        (None, _) => return Err(Error::NoToken("none was given")),
        (Some(_), Some(_)) => return Err(Error::NoToken("several were given")),
        (Some(given), None) => bearer(given),
    };
    match bearer {
        None => Err(Error::NoToken("what was given is no Bearer token")),
        Some(given) if token.opens(given) => Ok(()),
        Some(_) => Err(Error::NoToken("what was given is another")),
    }
}

/// The token in a header's value. The scheme's name is not case-sensitive (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let token = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(SCHEME) && token.len() < rest.len())
        .then_some(token.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::keys::Secret;
    use actix_web::http::header::HeaderValue;

    const TOKEN: &str = "0123456789abcdef";

    fn check(lines: &[&str]) -> Result<(), Error> {
        let settings = Settings { admin_token: Secret::new(TOKEN), ..Settings::default() };
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_str(line).expect("a value");
            headers.append(header::AUTHORIZATION, value);
        }
        check_token(&headers, &AdminToken::load(&settings).expect("a token"))
    }

    #[test]
    fn the_token_is_known_behind_its_scheme_and_nothing_else_is() {
        for good in
            ["Bearer 0123456789abcdef", "bearer  0123456789abcdef", "BEARER\t0123456789abcdef "]
        {
            assert_eq!(check(&[good]), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer0123456789abcdef",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcde",
            "Bearer x 0123456789abcdef",
        ] {
            assert!(matches!(check(&[bad]), Err(Error::NoToken(_))), "{bad}");
        }
        assert_eq!(check(&[]), Err(Error::NoToken("none was given")));
        let right = format!("Bearer {TOKEN}");
        assert!(check(&[&right, &right]).is_err(), "which of them counts is not clear");
    }

    #[test]
    fn without_a_token_whatever_is_given_is_passed_over() {
        let open = AdminToken::load(&Settings::default()).expect("none");
        let mut headers = HeaderMap::new();
        assert_eq!(check_token(&headers, &open), Ok(()));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(check_token(&headers, &open), Ok(()));
    }
}
