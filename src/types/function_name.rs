//! The names of functions.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// Bytes of a host name at most.
const HOST_BYTES_MAX: usize = 253;

/// A function's name: one DNS label, underscores allowed, 1 to 63 characters. Where an operator lists it,
/// it may have several labels.
///
/// A name becomes a host name (`http://<fn>:8080/`), so what a resolver would read as an address
/// (`127`, `0x7f000001`) or as this machine (`localhost`) is refused: nobody reaches another host
/// through a node by naming it as a function. With dots, a name can be that of any host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName(Arc<str>);

/// Why a string is not a [`FunctionName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFunctionName {
    /// Empty, or longer than 63 characters.
    #[error("a function name has 1 to 63 characters")]
    Length,
    /// A character outside `a-z A-Z 0-9 - _`, or a hyphen at an end.
    #[error(
        "a function name has letters, digits, underscores and inner hyphens only (one DNS label)"
    )]
    Characters,
    /// Something a resolver takes for an IP address or for this machine.
    #[error("a function name is neither an IP address nor localhost")]
    Address,
    /// A host name of several labels, which nobody has allowed.
    #[error(
        "a name with dots can be that of any host: a list of functions with it \
         (P2PFAAS_FNS_LIST=NAME) or a route (P2PFAAS_ROUTES=NAME=URL) allows it"
    )]
    Dotted,
}

impl Default for FunctionName {
    fn default() -> Self {
        Self::any()
    }
}

impl FunctionName {
    /// One whose name does not matter.
    pub fn any() -> Self {
        static ANY: LazyLock<FunctionName> = LazyLock::new(|| FunctionName("fn".into()));
        ANY.clone()
    }

    /// Checks `name` and takes it over.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(name: &str) -> Result<Self, BadFunctionName> {
        match check_label(name) {
            Ok(()) => Self::parse_listed(name),
            Err(_) if name.contains('.') && Self::parse_listed(name).is_ok() => {
                Err(BadFunctionName::Dotted)
            }
            Err(why) => Err(why),
        }
    }

    /// The same for a name that an operator lists: it may be a host name of several labels.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse_listed(name: &str) -> Result<Self, BadFunctionName> {
        if name.len() > HOST_BYTES_MAX {
            return Err(BadFunctionName::Length);
        }
        name.split('.').try_for_each(check_label)?;
        let this_machine = ["localhost", "ip6-localhost", "ip6-loopback"];
        let is_number = name.rsplit('.').next().is_some_and(is_number);
        if is_number || this_machine.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Err(BadFunctionName::Address);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `label` is a DNS label, underscores allowed.
fn check_label(label: &str) -> Result<(), BadFunctionName> {
    if label.is_empty() || label.len() > 63 {
        return Err(BadFunctionName::Length);
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    match label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-') {
        true => Ok(()),
        false => Err(BadFunctionName::Characters),
    }
}

/// Whether a name with this last label is an address, as the resolver's inet_aton reads them: decimal and
/// octal numbers are all digits, hexadecimal ones begin with 0x.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    hex.map_or_else(
        || label.bytes().all(|c| c.is_ascii_digit()),
        |digits| digits.bytes().all(|c| c.is_ascii_hexdigit()),
    )
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_name_is_one_dns_label_with_underscores() {
        for good in ["fn-echo", "a", "Fn_2", "_x", "0xfn", "9lives"] {
            assert_eq!(FunctionName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", BadFunctionName::Length),
            (&*"a".repeat(64), BadFunctionName::Length),
            ("a.b", BadFunctionName::Dotted),
            ("a.b.", BadFunctionName::Characters),
            ("-a", BadFunctionName::Characters),
            ("a-", BadFunctionName::Characters),
            ("a/b", BadFunctionName::Characters),
            ("é", BadFunctionName::Characters),
            ("[::1]", BadFunctionName::Characters),
            ("127.0.0.1", BadFunctionName::Characters),
        ] {
            assert_eq!(FunctionName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_function_name_that_a_resolver_reads_as_an_address_is_refused() {
        for bad in [
            "localhost",
            "LocalHost",
            "ip6-localhost",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0x",
        ] {
            assert_eq!(FunctionName::parse(bad), Err(BadFunctionName::Address), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_an_operator_lists_may_have_several_labels() {
        for good in [
            "fn-echo",
            "fn-echo.edge.local",
            "a.b",
            "Fn_2.7.example",
            "localhost.lan",
            "fn.localhost",
        ] {
            let listed = FunctionName::parse_listed(good).map(|name| name.to_string());
            assert_eq!(listed, Ok(good.to_owned()));
        }
        let long = ["a"; 128].join(".");
        for (bad, why) in [
            ("a..b", BadFunctionName::Length),
            (".a", BadFunctionName::Length),
            ("a.", BadFunctionName::Length),
            ("", BadFunctionName::Length),
            (&long, BadFunctionName::Length),
            ("a.-b", BadFunctionName::Characters),
            ("a.b/c", BadFunctionName::Characters),
            ("127.0.0.1", BadFunctionName::Address),
            ("a.0x7f", BadFunctionName::Address),
            ("a.1", BadFunctionName::Address),
            ("localhost", BadFunctionName::Address),
        ] {
            assert_eq!(FunctionName::parse_listed(bad), Err(why), "{bad:?}");
        }
        let told = BadFunctionName::Dotted.to_string();
        assert!(told.contains("P2PFAAS_FNS_LIST") && told.contains("P2PFAAS_ROUTES"), "{told}");
    }
}
