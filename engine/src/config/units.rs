//! Sizes and times as people write them: `64MiB`, `10ms`. A unit is required, and a wrong one is named with a hint.
//!
//! Reading never fails on the spot: the problem is kept and told by `Config::violations` with all others.
//! Invariant: a printed value reads back as the same value.

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A number of bytes: `512B`, `64KiB`, `64MiB`, `1GiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    bytes: u64,
    problem: Option<String>,
}

/// A length of time: `10ms`, `5s`, `1m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    nanos: u64,
    problem: Option<String>,
}

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Size {
        Size { bytes, problem: None }
    }
    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Size {
        Size::bytes(mib << 20)
    }
    /// Bytes. 0 if what was read made no sense.
    #[must_use]
    pub const fn get(&self) -> u64 {
        self.bytes
    }
    /// What was wrong with it.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
    /// Reads `64MiB`.
    #[must_use]
    pub fn parse(text: &str) -> Size {
        match parse(text, &SIZES, "64MiB") {
            Ok(bytes) => Size::bytes(bytes),
            Err(problem) => Size { bytes: 0, problem: Some(problem) },
        }
    }
}

impl Span {
    /// So much time.
    #[must_use]
    pub fn new(span: Duration) -> Span {
        Span { nanos: u64::try_from(span.as_nanos()).unwrap_or(u64::MAX), problem: None }
    }
    /// So many milliseconds.
    #[must_use]
    pub const fn millis(ms: u64) -> Span {
        Span { nanos: ms * 1_000_000, problem: None }
    }
    /// The time. Zero if what was read made no sense.
    #[must_use]
    pub const fn get(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
    /// What was wrong with it.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
    /// Reads `10ms`.
    #[must_use]
    pub fn parse(text: &str) -> Span {
        match parse(text, &SPANS, "10ms") {
            Ok(nanos) => Span { nanos, problem: None },
            Err(problem) => Span { nanos: 0, problem: Some(problem) },
        }
    }
}

impl From<Duration> for Span {
    fn from(span: Duration) -> Span {
        Span::new(span)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self.bytes, &SIZES))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self.nanos, &SPANS))
    }
}

/// In the largest unit that divides it.
fn print(value: u64, units: &[(&str, u64)]) -> String {
    let (name, size) = units.iter().find(|(_, size)| value != 0 && value.is_multiple_of(*size)).unwrap_or(&("", 1));
    let smallest = units.last().map_or("", |u| u.0);
    format!("{}{}", value / size, if name.is_empty() { smallest } else { name })
}

fn parse(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} must begin with a whole number, e.g. \"{example}\""))?;
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit; write \"{}\"", with_hint(digits, units, example)));
    }
    let Some((_, size)) = units.iter().find(|u| u.0 == unit) else {
        let hint = close_to(unit, units).map_or(example.to_owned(), |u| format!("{digits}{u}"));
        return Err(format!("unknown unit {unit:?} in {text:?}; write \"{hint}\""));
    };
    number.checked_mul(*size).ok_or_else(|| format!("{text:?} is too large"))
}

fn with_hint(digits: &str, units: &[(&str, u64)], example: &str) -> String {
    let unit = example.trim_start_matches(|c: char| c.is_ascii_digit());
    let known = units.iter().any(|u| u.0 == unit);
    if known { format!("{digits}{unit}") } else { example.to_owned() }
}

/// `Mb`, `MB`, `mib`, `M` mean `MiB`; `msec` means `ms`, `sec` means `s`.
fn close_to<'u>(unit: &str, units: &'u [(&'u str, u64)]) -> Option<&'u str> {
    let lower = unit.to_ascii_lowercase();
    let same = units.iter().find(|u| u.0.to_ascii_lowercase() == lower);
    let begins = || units.iter().filter(|u| u.0.len() > 1).find(|u| lower.starts_with(&u.0.to_ascii_lowercase()));
    let first = || units.iter().find(|u| u.0.chars().next().map(|c| c.to_ascii_lowercase()) == lower.chars().next());
    same.or_else(begins).or_else(first).map(|u| u.0)
}

struct Text<T>(fn(&str) -> T);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with a unit, in quotes")
    }
    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok((self.0)(&number.to_string()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok((self.0)(&number.to_string()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<T, E> {
        Ok((self.0)(&number.to_string()))
    }
    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok((self.0)(&value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        d.deserialize_any(Text(Size::parse))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        d.deserialize_any(Text(Span::parse))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1023, 1024, 64 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Size::parse(&Size::bytes(bytes).to_string()), Size::bytes(bytes));
        }
        for nanos in [0, 1, 1_000, 10_000_000, 90_000_000_000, 7_200_000_000_000] {
            let span = Span::new(Duration::from_nanos(nanos));
            assert_eq!(Span::parse(&span.to_string()), span);
        }
    }

    #[test]
    fn a_wrong_unit_is_named_with_the_right_one() {
        let hint = |p: Option<&str>| p.unwrap().rsplit("write ").next().unwrap().to_owned();
        for (wrong, right) in [("64Mb", "64MiB"), ("64MB", "64MiB"), ("1g", "1GiB"), ("7k", "7KiB"), ("9", "9MiB")] {
            assert_eq!(hint(Size::parse(wrong).problem()), format!("{right:?}"), "{wrong}");
        }
        for (wrong, right) in [("10msec", "10ms"), ("5sec", "5s"), ("2min", "2m"), ("3", "3ms")] {
            assert_eq!(hint(Span::parse(wrong).problem()), format!("{right:?}"), "{wrong}");
        }
        assert!(Size::parse("x").problem().is_some() && Size::parse("99999999999GiB").problem().is_some());
    }
}
