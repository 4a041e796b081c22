//! What was recorded beside arrivals: how long functions took, and how far nodes are from each other.

use super::table::Table;

/// Durations of a file at most.
pub const DURATIONS_MAX: usize = 10_000_000;
/// Pairs of nodes of a file at most: of 1000 nodes.
pub const PAIRS_MAX: usize = 1_000_000;
/// Nodes at most.
pub const NODES_MAX: u32 = 1000;
/// Seconds of a duration at most: a day.
const DURATION_MAX: f64 = 86_400.0;
/// Milliseconds of a latency at most: a minute.
const LATENCY_MAX: f64 = 60_000.0;
/// The least and the greatest bandwidth, in megabits a second.
const BANDWIDTH: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// The seconds in the column `duration_s` or `duration`, in the order of the rows. Other columns are passed
/// over, so that a trace of invocations is such a file as well.
///
/// # Errors
/// What is wrong, with the line.
pub fn durations(text: &str) -> Result<Vec<f64>, String> {
    let table = Table::new(text)?;
    let place = |name: &str| table.names().iter().position(|column| *column == name);
    let column = place("duration_s").or_else(|| place("duration"));
    let header = table.line();
    let column = column
        .ok_or_else(|| format!("line {header}: no column is called duration_s or duration"))?;
    let mut durations = Vec::new();
    for row in table {
        let row = row?;
        if durations.len() >= DURATIONS_MAX {
            return Err(row.wrong(format!("there are more than {DURATIONS_MAX} durations")));
        }
        let cell = row.cells().nth(column).unwrap_or_default();
        durations.push(row.number("the duration", cell, 0.0..=DURATION_MAX)?);
    }
    if durations.is_empty() {
        Err("there are no durations in it".to_owned())
    } else {
        Ok(durations)
    }
}

/// From which node to which, the latency in milliseconds, and the bandwidth in megabits a second, if one
/// is given.
pub type NodePair = (usize, usize, f64, Option<f64>);

/// The links of a file with the header `from,to,latency_ms` and perhaps `bandwidth_mbit`, whose cells may be
/// empty. Nodes are numbers from 0. A link leads one way, and each stands there once.
///
/// # Errors
/// What is wrong, with the line.
pub fn links(text: &str) -> Result<Vec<NodePair>, String> {
    const NAMES: [&str; 4] = ["from", "to", "latency_ms", "bandwidth_mbit"];
    let table = Table::new(text)?;
    if table.names() != NAMES && *table.names() != NAMES[..3] {
        let (line, names) = (table.line(), NAMES[..3].join(","));
        return Err(format!("line {line}: the header is not {names} with or without {}", NAMES[3]));
    }
    let mut links = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for row in table {
        let row = row?;
        if links.len() >= PAIRS_MAX {
            return Err(row.wrong(format!("there are more than {PAIRS_MAX} pairs")));
        }
        let [from, to, latency, bandwidth] = row.columns();
        let node = |what: &str, cell: &str| match row.whole(what, cell)? {
            node if node < NODES_MAX => Ok(node as usize),
            node => {
                Err(row.wrong(format!("{what} is {node}, and there are {NODES_MAX} nodes at most")))
            }
        };
        let (from, to) = (node(NAMES[0], from)?, node(NAMES[1], to)?);
        if from == to {
            return Err(row.wrong(format!("it leads from {from} to itself")));
        }
        if !seen.insert((from, to)) {
            return Err(row.wrong(format!("the link from {from} to {to} stands there twice")));
        }
        let latency = row.number(NAMES[2], latency, 0.0..=LATENCY_MAX)?;
        let bandwidth = match bandwidth {
            "" => None,
            bandwidth => Some(row.number(NAMES[3], bandwidth, BANDWIDTH)?),
        };
        links.push((from, to, latency, bandwidth));
    }
    if links.is_empty() { Err("there are no links in it".to_owned()) } else { Ok(links) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_found_by_the_name_of_their_column() {
        assert_eq!(durations("duration\n0.5\n1e-3\n"), Ok(vec![0.5, 0.001]));
        assert_eq!(durations("x,duration_s,duration\n1,2,3\n"), Ok(vec![2.0]));
        for (text, part) in [
            ("seconds\n1\n", "line 1: no column"),
            ("duration\n-1\n", "line 2"),
            ("duration\n\nNaN\n", "line 3"),
            ("duration\n1e9\n", "from 0 to 86400"),
            ("duration\n", "no durations"),
            ("", "empty"),
        ] {
            assert!(durations(text).expect_err(text).contains(part), "{text:?}");
        }
    }

    #[test]
    fn links_have_a_latency_and_perhaps_a_bandwidth() {
        let plain = links("from,to,latency_ms\n0,1,12.5\n1,0,13\n");
        assert_eq!(plain, Ok(vec![(0, 1, 12.5, None), (1, 0, 13.0, None)]));
        let mixed = links("from,to,latency_ms,bandwidth_mbit\n0,1,5,100\n1,0,5,\n");
        assert_eq!(mixed, Ok(vec![(0, 1, 5.0, Some(100.0)), (1, 0, 5.0, None)]));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/traces/synthetic_links.csv");
        let file = std::fs::read_to_string(file).expect("there");
        assert_eq!(links(&file).map(|links| links.len()), Ok(6));
        let header = "from,to,latency_ms\n";
        for (row, part) in [
            ("0,0,1", "line 2: it leads from 0 to itself"),
            ("0,1,1\n0,1,2", "line 3: the link from 0 to 1 stands there twice"),
            ("0,1,-1", "latency_ms"),
            ("0,1,inf", "latency_ms"),
            ("0,x,1", "to is \"x\""),
            ("0,1000,1", "1000 nodes at most"),
            ("0,1", "2 cells"),
            ("", "no links"),
        ] {
            assert!(links(&format!("{header}{row}")).expect_err(row).contains(part), "{row:?}");
        }
        assert!(links("a,b,c\n").expect_err("a header").contains("from,to,latency_ms"));
        assert!(
            links("from,to,latency_ms,bandwidth_mbit\n0,1,1,0\n").is_err(),
            "nothing would come"
        );
    }
}
