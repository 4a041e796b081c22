//! Lists of lists of numbers, as they stand in a model: written without a copy of them, and read
//! within bounds, for a few bytes (`[],[],…`) can become many.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::rl::LEARNT_MAX;
use crate::rl::cow::Rows;

/// A list that is written as its iterator goes.
pub struct Seq<F>(pub F);

impl<I: Iterator, F: Fn() -> I> Serialize for Seq<F>
where
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// A map that is written as its iterator goes.
pub struct Pairs<F>(pub F);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>, F: Fn() -> I> Serialize for Pairs<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map((self.0)())
    }
}

/// What the lists under a key of a model may be.
#[derive(Clone, Debug)]
pub struct Form {
    /// The key.
    pub key: &'static str,
    /// Numbers of each list.
    pub width: RangeInclusive<usize>,
    /// Lists at most.
    pub lists_max: usize,
    /// Numbers in all at most.
    pub numbers_max: usize,
    /// The magnitude of a number at most.
    pub magnitude_max: f64,
}

impl Form {
    /// Rows of what was learnt: `width` numbers each.
    pub fn learnt(key: &'static str, width: usize, lists_max: usize) -> Self {
        let numbers_max = lists_max.saturating_add(1).saturating_mul(width);
        Self { key, width: width..=width, lists_max, numbers_max, magnitude_max: LEARNT_MAX }
    }
}

/// The whole number, at least 0, that `number` is, if it is one.
pub fn whole(number: f64) -> Option<usize> {
    // A cast saturates.
    Some(number as usize).filter(|whole| *whole as f64 == number)
}

/// Puts `cells`, each its row, its column and its value, into `rows`.
///
/// # Errors
/// One has no place there, in words; those before it are put.
pub fn put(rows: &mut Rows<f64>, cells: &Lists) -> Result<(), String> {
    for cell in cells.iter() {
        let &[row, column, value] = cell else { return Err("a cell has three numbers".to_owned()) };
        let at = whole(row).filter(|row| *row < rows.len()).zip(whole(column));
        let place = at.and_then(|(row, column)| rows.get_mut(row)?.get_mut(column));
        *place.ok_or_else(|| format!("there is no value {column} of the row {row}"))? = value;
    }
    Ok(())
}

/// Lists of numbers, one after the other.
#[derive(Debug, Default)]
pub struct Lists {
    numbers: Vec<f64>,
    ends: Vec<usize>,
}

impl Lists {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.numbers.get(start..*end).unwrap_or_default())
    }
}

/// Reads the object `saved`, which must have the lists that `forms` name.
///
/// # Errors
/// What is not as it must be, in words.
pub fn read<const N: usize>(saved: &RawValue, forms: [Form; N]) -> Result<[Lists; N], String> {
    let mut json = serde_json::Deserializer::from_str(saved.get());
    json.deserialize_map(Keys(forms)).map_err(|why| why.to_string())
}

struct Keys<const N: usize>([Form; N]);

impl<'de, const N: usize> Visitor<'de> for Keys<N> {
    type Value = [Lists; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = [const { None }; N];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.iter().zip(&mut read).find(|(form, _)| form.key == key) {
                Some((form, place)) => *place = Some(map.next_value_seed(Outer(form))?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if let Some((form, _)) = self.0.iter().zip(&read).find(|(_, lists)| lists.is_none()) {
            return Err(A::Error::missing_field(form.key));
        }
        Ok(read.map(Option::unwrap_or_default))
    }
}

/// The lists of a form.
struct Outer<'a>(&'a Form);
/// One of them.
struct Inner<'a>(&'a Form, &'a mut Lists);
/// One number.
struct Number<'a>(&'a Form);

macro_rules! seeds {
    ($($seed:ident = $value:ty, $method:ident;)+) => { $(
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.$method(self)
            }
        }
    )+ };
}

seeds! {
    Outer = Lists, deserialize_seq;
    Inner = (), deserialize_seq;
    Number = f64, deserialize_any;
}

impl<'de> Visitor<'de> for Outer<'_> {
    type Value = Lists;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a list of lists of numbers", self.0.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lists, A::Error> {
        let mut lists = Lists::default();
        while list.next_element_seed(Inner(self.0, &mut lists))?.is_some() {
            if lists.len() > self.0.lists_max {
                let Form { key, lists_max, .. } = self.0;
                return Err(A::Error::custom(format!("{key} has more than {lists_max} lists")));
            }
        }
        Ok(lists)
    }
}

impl<'de> Visitor<'de> for Inner<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a list of numbers", self.0.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self(form, lists) = self;
        let (key, start) = (form.key, lists.numbers.len());
        while let Some(number) = list.next_element_seed(Number(form))? {
            if lists.numbers.len() >= form.numbers_max {
                let max = form.numbers_max;
                return Err(A::Error::custom(format!("{key} has more than {max} numbers")));
            }
            lists.numbers.push(number);
        }
        let width = lists.numbers.len() - start;
        if !form.width.contains(&width) {
            let (least, most) = (form.width.start(), form.width.end());
            let why =
                format!("a list of {key} has {width} numbers, it must have {least} to {most}");
            return Err(A::Error::custom(why));
        }
        lists.ends.push(lists.numbers.len());
        Ok(())
    }
}

impl Visitor<'_> for Number<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a number", self.0.key)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        let Form { key, magnitude_max, .. } = self.0;
        match number.abs() <= *magnitude_max {
            true => Ok(number),
            false => Err(E::custom(format!("{key}: {number:e} is beyond ±{magnitude_max:e}"))),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        self.visit_f64(number as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_two(text: &str) -> Result<[Lists; 2], String> {
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        let states =
            Form { key: "states", width: 1..=3, lists_max: 9, numbers_max: 5, magnitude_max: 9.0 };
        read(&raw, [states, Form::learnt("table", 2, 2)])
    }

    #[test]
    fn what_keeps_to_its_form_is_read() {
        let text = r#"{"table":[[1,-2.5],[0,1e100]],"more":{"x":[]},"states":[[1],[2,3,-4]]}"#;
        let [states, table] = read_two(text).expect("good");
        assert_eq!(states.iter().collect::<Vec<_>>(), [&[1.0][..], &[2.0, 3.0, -4.0]]);
        assert_eq!(table.iter().collect::<Vec<_>>(), [[1.0, -2.5], [0.0, 1e100]]);
    }

    #[test]
    fn each_bound_holds_and_is_named() {
        for (text, named) in [
            (r#"{"states":[],"table":[[],[]]}"#, "table"),
            (r#"{"states":[[1,2,3,4]],"table":[]}"#, "it must have 1 to 3"),
            (r#"{"states":[[1,2,3],[1,2,3]],"table":[]}"#, "more than 5 numbers"),
            (r#"{"states":[],"table":[[1,2],[1,2],[1,2]]}"#, "more than 2 lists"),
            (r#"{"states":[],"table":[[1,1e101]]}"#, "1e100"),
            (r#"{"states":[[10]],"table":[]}"#, "9e0"),
            (r#"{"states":[]}"#, "table"),
            (r#"{"states":[],"table":[["1",2]]}"#, "a number"),
            ("[]", "an object"),
        ] {
            let why = read_two(text).expect_err(text);
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
