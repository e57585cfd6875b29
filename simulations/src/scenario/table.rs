//! Typed values out of TOML tables, with a mistake for each that is not as it should be.
//!
//! Walks the parsed tables rather than deserialising into structs: a derived deserialiser stops at the first mistake.
//! Invariant: a function that returns `None` for a key that is there has written down why.

use std::{collections::BTreeMap, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    errors::{Mistake, ScenarioError},
    keys,
    units::{self, UnitError},
};

/// Longest name of a site, a group or a platform (as `layermesh_proto::wire::LABEL_BYTES_MAX`).
const NAME_LEN_MAX: usize = 64;

/// Value and its offset in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

/// A table, its place and its path, such as `site.uplink`.
#[derive(Clone, Copy)]
pub(super) struct Section<'t> {
    pub(super) path: &'static str,
    pub(super) at: usize,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// The value of a key.
    pub(super) fn find(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(keys::of(self.path).contains(&key), "`{key}` of `{}` is read and not known", self.path);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Where the value of a key is, else where the table is.
    pub(super) fn place(&self, key: &str) -> usize {
        self.find(key).map_or(self.at, |value| value.span().start)
    }
}

/// Names that were used, and where: each may be used once.
pub(super) type Names = BTreeMap<String, usize>;

/// A text, and the mistakes found in it.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) errors: Vec<ScenarioError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, errors: Vec::new() }
    }

    /// Writes a mistake down.
    pub(super) fn error(&mut self, at: usize, mistake: Mistake) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = 1 + before.get(line_start..).map_or(0, |start| start.chars().count());
        self.errors.push(ScenarioError { line: self.line(at), column, mistake });
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Takes a table as the one at `path`; unknown keys are mistakes.
    pub(super) fn section<'t>(&mut self, path: &'static str, at: usize, table: &'t DeTable<'t>) -> Section<'t> {
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if !keys::of(path).contains(&name) {
                let shown = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.error(key.span().start, Mistake::UnknownKey { key: shown, hint: keys::hint(path, name) });
            }
        }
        Section { path, at, table }
    }

    pub(super) fn wrong_type(&mut self, key: &str, wants: &str, value: &Spanned<DeValue<'_>>) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let mistake = Mistake::WrongType { key: key.to_owned(), wants: wants.to_owned(), found };
        self.error(value.span().start, mistake);
    }

    /// A table of its own at a key, `[site.uplink]` or inline.
    pub(super) fn table<'t>(&mut self, of: &Section<'t>, key: &'static str) -> Option<(usize, &'t DeTable<'t>)> {
        let value = of.find(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            let wants = format!("a table: write `{}`", keys::header(&joined(of.path, key)));
            self.wrong_type(key, &wants, value);
            return None;
        };
        Some((value.span().start, table))
    }

    /// All tables of a list, `[[site]]`.
    pub(super) fn tables<'t>(&mut self, of: &Section<'t>, key: &'static str) -> Vec<(usize, &'t DeTable<'t>)> {
        let Some(value) = of.find(key) else { return Vec::new() };
        let wants = format!("a list of tables: write `{}` above each", keys::header(&joined(of.path, key)));
        let values = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            // One pair of brackets: say so, and read on.
            DeValue::Table(_) => {
                self.wrong_type(key, &wants, value);
                vec![value]
            }
            _ => vec![value],
        };
        let mut tables = Vec::new();
        for value in values {
            match value.get_ref() {
                DeValue::Table(table) => tables.push((value.span().start, table)),
                _ => self.wrong_type(key, &wants, value),
            }
        }
        tables
    }

    /// All tables of a list that has at least one.
    pub(super) fn some_tables<'t>(
        &mut self,
        of: &Section<'t>,
        key: &'static str,
        what: &str,
        remedy: &'static str,
    ) -> Vec<(usize, &'t DeTable<'t>)> {
        let before = self.errors.len();
        let tables = self.tables(of, key);
        if of.find(key).is_none() {
            self.needs(of, &[key], what, remedy);
        } else if tables.is_empty() && self.errors.len() == before {
            self.error(of.place(key), Mistake::Missing { what: what.to_owned(), remedy });
        }
        tables
    }

    /// Writes down that none of some keys is there, unless another was probably meant to be one of them.
    pub(super) fn needs(&mut self, of: &Section<'_>, any: &[&str], what: &str, remedy: &'static str) {
        let meant = |key: &str| keys::meant(of.path, key).is_some_and(|meant| any.contains(&meant));
        if !of.table.iter().any(|(key, _)| meant(key.get_ref())) {
            self.error(of.at, Mistake::Missing { what: what.to_owned(), remedy });
        }
    }

    /// Any text.
    pub(super) fn text(&mut self, of: &Section<'_>, key: &str, wants: &str) -> Option<At<String>> {
        let value = of.find(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { at: value.span().start, value: text.to_string() }),
            _ => {
                self.wrong_type(key, wants, value);
                None
            }
        }
    }

    /// A text in some unit.
    pub(super) fn unit<T>(
        &mut self,
        of: &Section<'_>,
        key: &str,
        wants: &str,
        parse: impl Fn(&str) -> Result<T, UnitError>,
    ) -> Option<T> {
        let text = self.text(of, key, wants)?;
        self.parsed(key, &text, parse)
    }

    fn parsed<T>(&mut self, key: &str, text: &At<String>, parse: impl Fn(&str) -> Result<T, UnitError>) -> Option<T> {
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(text.at, Mistake::WrongUnit { key: key.to_owned(), error });
                None
            }
        }
    }

    /// A duration, `default` if it is not there or wrong.
    pub(super) fn duration(&mut self, of: &Section<'_>, key: &str, default: Duration) -> Duration {
        let wants = "a duration such as `\"90s\"` or `\"1h30m\"`";
        self.unit(of, key, wants, units::parse_duration).unwrap_or(default)
    }

    /// A rate.
    pub(super) fn rate(&mut self, of: &Section<'_>, key: &str) -> Option<u64> {
        self.unit(of, key, "a rate such as `\"2mbit\"` or `\"10MB/s\"`", units::parse_rate)
    }

    /// Yes or no; no if it is not there or wrong, unless `default` says otherwise.
    pub(super) fn flag(&mut self, of: &Section<'_>, key: &str, default: bool) -> bool {
        let Some(value) = of.find(key) else { return default };
        match value.get_ref() {
            DeValue::Boolean(flag) => *flag,
            _ => {
                self.wrong_type(key, "`true` or `false`, without quotes", value);
                default
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&mut self, of: &Section<'_>, key: &str, range: (u64, u64)) -> Option<u64> {
        let value = of.find(key)?;
        let (from, to) = range;
        let allowed = format!("a whole number from {from} to {to}");
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, &format!("{allowed}, without quotes"), value);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (from..=to).contains(number));
        if number.is_none() {
            let (key, found) = (key.to_owned(), integer.to_string());
            self.error(value.span().start, Mistake::OutOfRange { key, range: allowed, found });
        }
        number
    }

    /// How many of something: at least one, which is the default.
    pub(super) fn count(&mut self, of: &Section<'_>, key: &str, max: u32) -> u32 {
        if of.find(key).is_none() {
            return 1;
        }
        // After a mistake two, so that what needs more than one does not complain as well.
        self.integer(of, key, (1, u64::from(max))).and_then(|count| u32::try_from(count).ok()).unwrap_or(2)
    }

    /// A number, however it is written.
    fn number(&mut self, of: &Section<'_>, key: &str, wants: &str) -> Option<At<String>> {
        let value = of.find(key)?;
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) => integer.as_str().to_owned(),
            DeValue::String(text) => text.to_string(),
            _ => {
                self.wrong_type(key, wants, value);
                return None;
            }
        };
        Some(At { at: value.span().start, value: text })
    }

    /// A share, `0.1` or `"10%"`.
    pub(super) fn share(&mut self, of: &Section<'_>, key: &str) -> Option<f64> {
        let text = self.number(of, key, "a share such as `0.1` or `\"10%\"`")?;
        self.parsed(key, &text, units::parse_share)
    }

    /// A factor above 0: below 1 for what patches are to save.
    pub(super) fn factor(&mut self, of: &Section<'_>, key: &str) -> Option<f64> {
        let range = "a number above 0, such as `1.05`";
        let text = self.number(of, key, range)?;
        let factor = text.value.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 0.0);
        if factor.is_none() {
            let (key, range, found) = (key.to_owned(), range.to_owned(), format!("`{}`", text.value));
            self.error(text.at, Mistake::OutOfRange { key, range, found });
        }
        factor
    }

    /// A text or a list of them.
    pub(super) fn texts(&mut self, of: &Section<'_>, key: &str, wants: &str) -> Vec<At<String>> {
        let Some(value) = of.find(key) else { return Vec::new() };
        let values = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            _ => vec![value],
        };
        let mut texts = Vec::new();
        for value in values {
            match value.get_ref() {
                DeValue::String(text) => texts.push(At { at: value.span().start, value: text.to_string() }),
                _ => self.wrong_type(key, wants, value),
            }
        }
        texts
    }

    /// Times of every day.
    pub(super) fn daily(&mut self, of: &Section<'_>, key: &str) -> Vec<super::Daily> {
        let texts = self.texts(of, key, "a time of day such as `\"01:00-05:00\"`, or a list of them");
        texts.iter().filter_map(|text| self.parsed(key, text, units::parse_daily)).collect()
    }

    /// The name of a site or a group, that no other has; `default` if there is none.
    pub(super) fn name(&mut self, of: &Section<'_>, what: &'static str, default: &str, used: &mut Names) -> String {
        let name = self.text(of, "name", "a name such as `\"shop\"`");
        let name = name.unwrap_or_else(|| At { at: of.at, value: default.to_owned() });
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.value.is_empty() || name.value.len() > NAME_LEN_MAX || !name.value.chars().all(plain) {
            let rule = format!("write up to {NAME_LEN_MAX} letters, digits, `.`, `_` and `-`");
            let shown = name.value.clone();
            self.error(name.at, Mistake::BadName { name: shown, of: what, rule });
        }
        self.unique(what, &name, used);
        name.value
    }

    /// Writes down that a name was used twice.
    pub(super) fn unique(&mut self, what: &'static str, name: &At<String>, used: &mut Names) {
        match used.get(&name.value).copied() {
            Some(first) => {
                let first = self.line(first);
                self.error(name.at, Mistake::Twice { what, name: name.value.clone(), first });
            }
            None => {
                used.insert(name.value.clone(), name.at);
            }
        }
    }
}

/// Whether a text is an OCI platform, `linux/arm64` or `linux/arm/v7`.
pub(super) fn is_platform(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let parts = text.split('/').filter(|part| !part.is_empty() && part.chars().all(plain)).count();
    (2..=3).contains(&parts) && parts == text.split('/').count() && text.len() <= NAME_LEN_MAX
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
