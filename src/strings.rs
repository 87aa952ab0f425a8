//! Strings by strings: labels, annotations. Objects of JSON, read and written.
//!
//! A sorted list: there are a few dozen at most, and std's BTreeMap of another type is 4 KB of code.

use miniserde::de::{self, Deserialize, Visitor};
use miniserde::ser::{self, Fragment, Serialize};
use miniserde::{Result, make_place};

/// Values by their keys, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings(Vec<(String, String)>);

impl Strings {
    /// None.
    pub fn new() -> Strings {
        Strings(Vec::new())
    }

    fn place(&self, key: &str) -> std::result::Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(key))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&String> {
        let place = self.place(key).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// Gives the key this value, in place of one that it has.
    pub fn insert(&mut self, key: String, value: String) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (key, value)),
        }
    }

    /// All, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Strings {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        let mut strings = Strings::new();
        for (key, value) in pairs {
            strings.insert(key, value);
        }
        strings
    }
}

impl Serialize for Strings {
    fn begin(&self) -> Fragment<'_> {
        Fragment::Map(Box::new(Written(self.0.iter())))
    }
}

struct Written<'a>(std::slice::Iter<'a, (String, String)>);

impl ser::Map for Written<'_> {
    fn next(&mut self) -> Option<(std::borrow::Cow<'_, str>, &dyn Serialize)> {
        self.0.next().map(|(key, value)| (key.as_str().into(), value as &dyn Serialize))
    }
}

make_place!(Place);

impl Deserialize for Strings {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Visitor for Place<Strings> {
    fn map(&mut self) -> Result<Box<dyn de::Map + '_>> {
        let (strings, key, value) = (Strings::new(), String::new(), None);
        Ok(Box::new(Read { out: &mut self.out, strings, key, value }))
    }
}

struct Read<'a> {
    out: &'a mut Option<Strings>,
    strings: Strings,
    /// The last key, and its value as soon as that is read.
    key: String,
    value: Option<String>,
}

impl Read<'_> {
    fn keep(&mut self) {
        if let Some(value) = self.value.take() {
            self.strings.insert(std::mem::take(&mut self.key), value);
        }
    }
}

impl de::Map for Read<'_> {
    fn key(&mut self, key: &str) -> Result<&mut dyn Visitor> {
        self.keep();
        self.key = key.to_string();
        Ok(Deserialize::begin(&mut self.value))
    }

    fn finish(&mut self) -> Result<()> {
        self.keep();
        *self.out = Some(std::mem::take(&mut self.strings));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use miniserde::json;

    use super::*;

    #[test]
    fn is_an_object_of_json() {
        let text = r#"{"b":"2","a":"","b":"3","c":"\n"}"#;
        let mut strings: Strings = json::from_str(text).unwrap();
        assert_eq!(json::to_string(&strings), r#"{"a":"","b":"3","c":"\n"}"#);
        assert_eq!((strings.get("b"), strings.get("d")), (Some(&"3".into()), None));
        strings.insert("aa".into(), "x".into());
        strings.insert("c".into(), "y".into());
        let pairs: Vec<_> = strings.iter().collect();
        assert_eq!(pairs, [("a", ""), ("aa", "x"), ("b", "3"), ("c", "y")]);
        assert_eq!(json::to_string(&Strings::new()), "{}");
        for text in [r#"{"a":1}"#, r#"["a"]"#, r#"{"a":null}"#, r#"{"a":{}}"#] {
            assert!(json::from_str::<Strings>(text).is_err(), "{text}");
        }
    }
}
