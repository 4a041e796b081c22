//! Who of the machines that are there may be handed calls: a node's neighbours.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::shortened;

/// Neighbours that can be listed at most.
pub const NEIGHBOURS_MAX: usize = 1024;

/// Whom a node hands calls to. Written as `all`, `group`, `nearest N` or `list ADDRESS …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Neighbours {
    /// All machines.
    #[default]
    All,
    /// Those of the node's own group.
    Group,
    /// So many of those with the shortest round trips; at least 1.
    Nearest(usize),
    /// Those at these addresses.
    List(Vec<IpAddr>),
}

impl FromStr for Neighbours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let not = || {
            let text = shortened(text, 64);
            format!("{text:?} is none of `all`, `group`, `nearest N` and `list ADDRESS …`")
        };
        match words[..] {
            ["all"] | [] => Ok(Self::All),
            ["group"] => Ok(Self::Group),
            ["nearest", count] => match count.parse() {
                Ok(count @ 1..=NEIGHBOURS_MAX) => Ok(Self::Nearest(count)),
                _ => Err(format!(
                    "nearest {}: a number from 1 to {NEIGHBOURS_MAX} is wanted",
                    shortened(count, 64)
                )),
            },
            ["list", ref all @ ..] if all.len() <= NEIGHBOURS_MAX => {
                let address = |word: &&str| {
                    let no = |_| format!("{:?} is no IP address", shortened(word, 64));
                    word.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(no)
                };
                Ok(Self::List(all.iter().map(address).collect::<Result<_, _>>()?))
            }
            ["list", ..] => Err(format!("more than {NEIGHBOURS_MAX} addresses are listed")),
            _ => Err(not()),
        }
    }
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Group => f.write_str("group"),
            Self::Nearest(count) => write!(f, "nearest {count}"),
            Self::List(all) => {
                f.write_str("list")?;
                all.iter().try_for_each(|ip| write!(f, " {ip}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_as_they_are_written() {
        let list = Neighbours::List(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
        for (text, neighbours) in [
            ("all", Neighbours::All),
            ("", Neighbours::All),
            ("group", Neighbours::Group),
            ("nearest 3", Neighbours::Nearest(3)),
            ("list 10.0.0.1, 10.0.0.2", list),
            ("list", Neighbours::List(Vec::new())),
        ] {
            assert_eq!(text.parse(), Ok(neighbours.clone()), "{text}");
            assert_eq!(neighbours.to_string().parse(), Ok(neighbours));
        }
        for text in ["ring", "nearest", "nearest 0", "nearest x", "list fog-1", "all 3", "group a"]
        {
            assert!(text.parse::<Neighbours>().is_err(), "{text}");
        }
        let many = format!("list{}", " 10.0.0.1".repeat(NEIGHBOURS_MAX + 1));
        assert!(many.parse::<Neighbours>().is_err());
    }
}
