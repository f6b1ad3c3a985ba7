//! Parameters that may be written in two ways.

use schemars::JsonSchema;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is run: text for a shell, or a program with its arguments.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Run {
    Shell(String),
    Program(Vec<String>),
}

/// Variable → its value, or `None` for that of the process that runs the pipeline.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Environment(pub(super) BTreeMap<String, Option<String>>);

/// How [`Environment`] may be written.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes a format, is never made")]
pub(super) enum EnvironmentSchema {
    Names(Vec<String>),
    Values(BTreeMap<String, Option<String>>),
}

impl Environment {
    /// The variables whose values come from outside.
    pub(super) fn passed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str())
    }

    /// The value that the file gives a variable.
    pub(super) fn fixed(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }
}

// Not `#[serde(untagged)]`: that would take `[head, -n, 1]` for a list of texts and a number.
impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RunVisitor;
        impl<'de> Visitor<'de> for RunVisitor {
            type Value = Run;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a command as text, or a list of a program and its arguments")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Run, E> {
                Ok(Run::Shell(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Run, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = items.next_element()? {
                    words.push(word);
                }
                Ok(Run::Program(words))
            }
        }
        deserializer.deserialize_any(RunVisitor)
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnvironmentVisitor;
        impl<'de> Visitor<'de> for EnvironmentVisitor {
            type Value = Environment;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a list of names, or a mapping of names to values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Environment, A::Error> {
                let mut names = BTreeMap::new();
                while let Some(name) = items.next_element()? {
                    names.insert(name, None);
                }
                Ok(Environment(names))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Environment, A::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = pairs.next_entry()? {
                    values.insert(name, value);
                }
                Ok(Environment(values))
            }
        }
        deserializer.deserialize_any(EnvironmentVisitor)
    }
}
