//! Recorded traffic: when calls came, as others have published it. Text in, values out.
//!
//! | layout | header | a row |
//! |---|---|---|
//! | counts | `HashOwner,HashApp,HashFunction,Trigger,1,2,…,1440` | a function, and its invocations in each minute |
//! | invocations | `app,func,end_timestamp,duration` | an invocation, in seconds |
//! | arrivals | `at_s,node` and perhaps `payload` | an arrival, in seconds from the beginning |
//!
//! The first is that of *Azure Functions Trace 2019* (M. Shahrad et al., *Serverless in the wild*, USENIX
//! ATC 2020), the second that of *Azure Functions RecordedCall Trace 2021* (Y. Zhang et al., *Faster and
//! cheaper serverless computing on harvested resources*, SOSP 2021), both as the pages of the Azure Public
//! Dataset describe them. The third is ours. A function of 2021 is an application and a name together,
//! since its name is unique within the application only.
//!
//! An invocation starts at its end less its duration. Starts are told from the earliest on: they are
//! sorted, and the first is at 0. The beginning of arrivals is 0 itself, so that they keep their times.

use std::collections::HashMap;

use rand::{Rng, RngExt};

use super::table::{Row, Table};

/// Invocations at most; of counted ones, those of a run.
pub const INVOCATIONS_MAX: usize = 10_000_000;
/// Functions at most.
pub const FUNCTIONS_MAX: usize = 100_000;
/// Minutes of counts at most: a week.
pub const MINUTES_MAX: usize = 10_080;
/// Counts in all at most, which take 4 bytes each.
pub const COUNTS_MAX: usize = 150_000_000;
/// Seconds at most, of times and of durations: some 30 years.
pub const SECONDS_MAX: f64 = 1e9;

/// The columns before the minutes.
const COUNTED: [&str; 4] = ["HashOwner", "HashApp", "HashFunction", "Trigger"];
const INVOKED: [&str; 4] = ["app", "func", "end_timestamp", "duration"];
const ARRIVED: [&str; 3] = ["at_s", "node", "payload"];

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A function's invocations in each minute.
    Counts,
    /// Invocations with their ends and durations.
    Invocations,
    /// Arrivals at nodes.
    Arrivals,
}

/// An invocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedCall {
    /// When it started, in seconds.
    pub at_s: f64,
    /// How long it took, in seconds.
    pub duration_s: Option<f64>,
    /// Which function it was of, in the order in which functions come first in the file. Arrivals have one.
    pub function: usize,
    /// The node that it came to.
    pub node: Option<u32>,
    /// Which payload it had, by its number.
    pub payload: Option<u32>,
}

/// What came when.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrived {
    /// Of each function the invocations in each minute; all have the same minutes.
    Counts(Vec<Vec<u32>>),
    /// Invocations in the order of their starts.
    Invocations(Vec<RecordedCall>),
}

/// The layout of a file, by its header.
///
/// # Errors
/// It is none of them.
pub fn layout(text: &str) -> Result<Layout, String> {
    layout_of(&Table::new(text)?)
}

fn layout_of(table: &Table<'_>) -> Result<Layout, String> {
    let names = table.names();
    if names == INVOKED {
        return Ok(Layout::Invocations);
    }
    if names == ARRIVED || *names == ARRIVED[..2] {
        return Ok(Layout::Arrivals);
    }
    let minutes = names.strip_prefix(&COUNTED[..]).unwrap_or_default();
    if minutes.is_empty() {
        return Err(format!(
            "line {}: the header is neither {},1,2,… nor {} nor {},{} with or without {}",
            table.line(),
            COUNTED.join(","),
            INVOKED.join(","),
            ARRIVED[0],
            ARRIVED[1],
            ARRIVED[2],
        ));
    }
    if minutes.len() > MINUTES_MAX {
        return Err(format!(
            "there are {} minutes, at most {MINUTES_MAX} are taken",
            minutes.len()
        ));
    }
    match minutes.iter().zip(1..).find(|(name, minute)| name.parse::<usize>() != Ok(*minute)) {
        Some((_, minute)) => {
            Err(format!("line {}: the column of minute {minute} is not {minute}", table.line()))
        }
        None => Ok(Layout::Counts),
    }
}

/// Reads a file of any of the layouts.
///
/// # Errors
/// What is wrong, with the line.
pub fn parse(text: &str) -> Result<Arrived, String> {
    parse_for(text, u64::MAX, u64::MAX)
}

/// The same where there are so many nodes and payloads, which arrivals must keep to.
///
/// # Errors
/// As [`parse`], and arrivals name a node or a payload that is not there.
pub fn parse_for(text: &str, nodes: u64, payloads: u64) -> Result<Arrived, String> {
    let table = Table::new(text)?;
    match layout_of(&table)? {
        Layout::Counts => counts(table).map(Arrived::Counts),
        Layout::Invocations => invocations(table).map(Arrived::Invocations),
        Layout::Arrivals => arrivals(table, nodes, payloads).map(Arrived::Invocations),
    }
}

fn counts(table: Table<'_>) -> Result<Vec<Vec<u32>>, String> {
    let mut functions = Vec::new();
    let mut counted = 0usize;
    for row in table {
        let row = row?;
        if functions.len() >= FUNCTIONS_MAX {
            return Err(row.wrong(format!("there are more than {FUNCTIONS_MAX} functions")));
        }
        let minutes: Vec<u32> = row
            .cells()
            .skip(COUNTED.len())
            .map(|cell| row.whole("a count", cell))
            .collect::<Result<_, _>>()?;
        counted += minutes.len();
        if counted > COUNTS_MAX {
            return Err(row.wrong(format!("there are more than {COUNTS_MAX} counts")));
        }
        functions.push(minutes);
    }
    if functions.is_empty() {
        Err("there are no functions in it".to_owned())
    } else {
        Ok(functions)
    }
}

fn invocations(table: Table<'_>) -> Result<Vec<RecordedCall>, String> {
    let mut functions = HashMap::new();
    let mut all = Vec::new();
    for row in table {
        let row = row?;
        let [app, func, end, duration] = row.columns();
        let end = row.number(INVOKED[2], end, -SECONDS_MAX..=SECONDS_MAX)?;
        let duration = row.number(INVOKED[3], duration, 0.0..=SECONDS_MAX)?;
        let next = functions.len();
        let function = *functions.entry((app, func)).or_insert(next);
        if function >= FUNCTIONS_MAX {
            return Err(row.wrong(format!("there are more than {FUNCTIONS_MAX} functions")));
        }
        let (at_s, duration_s) = (end - duration, Some(duration));
        keep(
            &mut all,
            &row,
            RecordedCall { at_s, duration_s, function, node: None, payload: None },
        )?;
    }
    let mut all = sorted(all)?;
    let first = all.first().map_or(0.0, |first| first.at_s);
    all.iter_mut().for_each(|invocation| invocation.at_s -= first);
    Ok(all)
}

fn arrivals(table: Table<'_>, nodes: u64, payloads: u64) -> Result<Vec<RecordedCall>, String> {
    let mut all = Vec::new();
    let known =
        |row: &Row<'_>, what: &str, cell: &str, there_are: u64| match row.whole(what, cell)? {
            number if u64::from(number) < there_are => Ok(number),
            number => {
                Err(row.wrong(format!("{what} is {number}, but there are {there_are}, from 0 on")))
            }
        };
    for row in table {
        let row = row?;
        // Without the third column its cell is empty.
        let [at, node, payload] = row.columns();
        let at_s = row.number(ARRIVED[0], at, 0.0..=SECONDS_MAX)?;
        let node = Some(known(&row, ARRIVED[1], node, nodes)?);
        let payload = match payload {
            "" => None,
            payload => Some(known(&row, ARRIVED[2], payload, payloads)?),
        };
        keep(&mut all, &row, RecordedCall { at_s, duration_s: None, function: 0, node, payload })?;
    }
    sorted(all)
}

fn keep(all: &mut Vec<RecordedCall>, row: &Row<'_>, one: RecordedCall) -> Result<(), String> {
    if all.len() >= INVOCATIONS_MAX {
        return Err(row.wrong(format!("there are more than {INVOCATIONS_MAX} invocations")));
    }
    all.push(one);
    Ok(())
}

/// In the order of their starts; those of one time as they come in the file.
fn sorted(mut all: Vec<RecordedCall>) -> Result<Vec<RecordedCall>, String> {
    in_order(&mut all);
    if all.is_empty() { Err("there are no invocations in it".to_owned()) } else { Ok(all) }
}

/// A function's `count` calls of one minute, in no order.
///
/// Assumes that the invocations of a minute are spread over it evenly and independently: n in a minute are
/// n uniform times, which are the times of a Poisson process that has n of them there (E. Çinlar, *Introduction to
/// Stochastic Processes*, 1975, section 4.5). The trace does not say where in a minute they were, and counts each
/// when it has ended.
pub fn in_minute(
    minute: u32,
    function: usize,
    count: u32,
    rng: &mut dyn Rng,
) -> impl Iterator<Item = RecordedCall> {
    (0..count).map(move |_| RecordedCall {
        at_s: sometime(minute, rng),
        duration_s: None,
        function,
        node: None,
        payload: None,
    })
}

/// A time by chance in that minute, from 0, in seconds.
pub fn sometime(minute: u32, rng: &mut dyn Rng) -> f64 {
    60.0 * (f64::from(minute) + rng.random::<f64>())
}

/// Puts calls in the order of their starts; those of one time stay as they are.
pub fn in_order(calls: &mut [RecordedCall]) {
    calls.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
}

/// The node that the invocation comes to where there are `nodes`: its own, if it has one, else that of its
/// function. Functions go round the nodes in their order. `None`: there is no such node.
pub fn node_of(invocation: &RecordedCall, nodes: u32) -> Option<u32> {
    let of_function =
        || u32::try_from((invocation.function as u64).checked_rem(nodes.into())?).ok();
    invocation.node.or_else(of_function).filter(|node| *node < nodes)
}

#[cfg(test)]
mod tests;
