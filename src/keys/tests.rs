//! A table of its own, and what follows from it.

use serde_json::{Map, Value, json};

use super::*;
use crate::types::List;

key_table! {
    /// Keys of every kind.
    #[derive(Clone, Debug, PartialEq, serde::Serialize)]
    pub struct Sample {
        "Times" {
            /// Time to wait
            /// for an answer.
            wait_s: f64 = 1.5 => unit: "seconds", allowed: within(0.5, 10.0), flag: Some("wait"), v1_names: &["P2PFAAS_WAIT"];
            /// Factors.
            factors: List<f64> = List(vec![1.0]) => allowed: above(0.0, 4.0);
        }

        "Words" {
            /// How it is done.
            how: String = "fast".to_owned() => allowed: one_of(|| vec!["fast", "well"]), at_reset: true;
            /// A seed.
            seed: Option<u64> = Worded(None, "a random one");
            /// Whether a | is a border.
            border: bool = true;
        }
    }
    beside {
        /// No key.
        beside: u8 = 7;
    }
}

struct Posted(Map<String, Value>);

impl KeySource for Posted {
    fn value<T: KeyValue>(&self, key: &Key) -> Option<Result<T, Unreadable>> {
        let value = self.0.get(key.name)?;
        let unreadable =
            |why: serde_json::Error| Unreadable { given: value.to_string(), why: why.to_string() };
        Some(T::deserialize(value).map_err(unreadable))
    }
}

fn read_over(mut sample: Sample, posted: Value) -> (Sample, Vec<String>) {
    let Value::Object(posted) = posted else { panic!("an object") };
    let mut problems = Vec::new();
    sample.read_keys(&Posted(posted), &mut problems);
    (sample, problems.iter().map(ToString::to_string).collect())
}

fn read_sample(posted: Value) -> (Sample, Vec<String>) {
    read_over(Sample::default(), posted)
}

#[test]
fn what_is_not_given_stays_and_what_is_given_is_taken_over() {
    let before = Sample { seed: Some(1), beside: 9, ..Sample::default() };
    let (after, problems) = read_over(before.clone(), json!({"factors": 2, "x": 1}));
    assert_eq!(problems, [""; 0]);
    assert_eq!(after, Sample { factors: List(vec![2.0]), ..before });
}

#[test]
fn every_problem_names_the_key_what_was_given_and_what_is_allowed() {
    for (posted, told) in [
        (json!({"wait_s": 0.4}), "wait_s: 0.4 is not within 0.5 to 10"),
        (json!({"wait_s": "x"}), "wait_s: \"x\" is not a number from 0.5 to 10"),
        (json!({"factors": [1, 0]}), "factors: 0 is not above 0 and at most 4"),
        (
            json!({"factors": true}),
            "factors: true is not a number above 0, at most 4, or a list of such",
        ),
        (json!({"how": "badly"}), "how: \"badly\" is none of fast, well"),
        (json!({"how": 3}), "how: 3 is not one of fast, well"),
        (json!({"seed": -1}), "seed: -1 is not a whole number from 0 on"),
        (json!({"border": 1}), "border: 1 is not true or false"),
    ] {
        assert_eq!(read_sample(posted).1, [told]);
    }
    let (_, problems) = read_sample(json!({"wait_s": 0, "how": "x"}));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_value_that_is_quoted_is_shortened() {
    let (_, problems) = read_sample(json!({"how": "x".repeat(1000), "border": "x".repeat(1000)}));
    assert!(problems.len() == 2 && problems.iter().all(|told| told.len() < 120), "{problems:?}");
}

#[test]
fn help_and_page_tell_every_fact() {
    let [wait, .., seed, border] = Sample::KEYS else { panic!("five keys") };
    let told = "Time to wait for an answer. [seconds, 0.5 to 10] [default: 1.5]";
    assert_eq!((wait.help().as_str(), &*wait.environment()), (told, "P2PFAAS_WAIT_S"));
    assert_eq!(seed.help(), "A seed. [number, from 0] [default: a random one]");
    assert_eq!(
        (wait.flag, wait.v1_names, border.at_reset),
        (Some("wait"), &["P2PFAAS_WAIT"][..], false)
    );
    let columns = [Column::NAME, Column::UNIT, Column::RANGE, Column::DEFAULT, Column::MEANING];
    let page = "## Times\n\n\
        | name | unit | range | default | what it does |\n|---|---|---|---|---|\n\
        | `wait_s` | seconds | 0.5 to 10 | `1.5` | Time to wait for an answer. |\n\
        | `factors` | list | above 0, at most 4 | `[1.0]` | Factors. |\n\n\
        ## Words\n\n\
        | name | unit | range | default | what it does |\n|---|---|---|---|---|\n\
        | `how` | text | `fast`, `well` | `fast` | How it is done. |\n\
        | `seed` | number | from 0 | a random one | A seed. |\n\
        | `border` | boolean | true or false | `true` | Whether a \\| is a border. |\n";
    assert_eq!(tables(Sample::KEYS, &columns), page);
}

key_table! {
    /// Keys of which one is never shown.
    #[derive(Debug, serde::Serialize)]
    pub struct Guarded {
        "Keys" {
            /// What opens the door.
            key: Secret = Secret::default();
            /// The door.
            door: u32 = 1;
        }
    }
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let mut guarded = Guarded::default();
    let told = json!({"key": "open sesame", "door": 2});
    let Value::Object(posted) = told else { panic!("an object") };
    let mut problems = Vec::new();
    assert!(guarded.hidden().is_empty() && Sample::default().hidden().is_empty());
    guarded.read_keys(&Posted(posted), &mut problems);
    assert_eq!(guarded.hidden()[0].name, "key");
    assert_eq!((guarded.key.reveal(), guarded.key.is_set()), ("open sesame", true));
    assert_eq!(format!("{guarded:?}"), "Guarded { key: Secret(set), door: 2 }");
    assert_eq!(toml::to_string(&guarded).expect("TOML"), "door = 2\n");
    let Value::Object(posted) = json!({"key": ["open sesame"]}) else { panic!("an object") };
    guarded.read_keys(&Posted(posted), &mut problems);
    assert_eq!(problems[0].to_string(), "key: what was given is no text; it is not shown");
    let [key, door] = Guarded::KEYS else { panic!("two keys") };
    assert_eq!((key.secret, door.secret), (true, false));
    assert_eq!(key.help(), "What opens the door. [a text that is not shown] [default: none]");
}
