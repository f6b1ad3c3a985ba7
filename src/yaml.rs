//! YAML text to [`Node`]s, and back to places in the text. The only file that knows serde_yaml.
//!
//! Scalars stay text until a type asks for them, so `${…}` needs no special case and `1.10` stays `1.10`. A node
//! carries no position: its [`NodeId`] is its number in reading order, and the place is found by reading the text
//! once more and stopping there. Places are needed for messages only.

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fmt;

mod nesting;

/// Number of a node (or key) in reading order, counted from 1; 0 is a node that no file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeId(u32);

impl NodeId {
    /// A value that came from the command line or the environment.
    pub const NOWHERE: Self = Self(0);
}

/// A value as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order written; a key may stand twice, which [`crate::pipeline`] reports.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scalar {
    pub text: String,
    pub kind: ScalarKind,
}

/// What YAML takes a scalar for when nobody asks for a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalarKind {
    Bool,
    Number,
    Text,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub id: NodeId,
    pub text: String,
}

/// The text is not YAML, or uses a part of YAML that pipelines do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
    /// Byte offset.
    pub at: usize,
}

impl Node {
    pub fn scalar(text: impl Into<String>) -> Self {
        Self { id: NodeId::NOWHERE, value: resolve(&text.into()) }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// What the value is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar(scalar) => format!("`{}`", scalar.text),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The value as YAML would type it, for records.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar(Scalar { text, kind: ScalarKind::Bool }) => {
                text.eq_ignore_ascii_case("true").into()
            }
            // A number that JSON cannot hold, such as `.inf`, stays text.
            Value::Scalar(Scalar { text, kind: ScalarKind::Number }) => {
                serde_json::from_str(&text.replace('_', "")).unwrap_or_else(|_| text.as_str().into())
            }
            Value::Scalar(Scalar { text, kind: ScalarKind::Text }) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(pairs) => {
                pairs.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect()
            }
        }
    }
}

/// Reads one YAML document.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    nesting::check(text)?;
    let count = Cell::new(0);
    let shape = Seed { count: &count, stop_at: None }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| syntax_error(text, &error))?;
    if shape.value == Value::Null {
        return Ok(shape);
    }
    let mut node = TextSeed(shape)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| syntax_error(text, &error))?;
    merge(&mut node).map_err(|(id, message)| SyntaxError { message, at: place(text, id).unwrap_or(0) })?;
    Ok(node)
}

/// Gives text from `${…}`, `--set` or the environment the kind that YAML would.
pub fn resolve(text: &str) -> Value {
    let kind = match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(serde_yaml::Value::Bool(_)) => ScalarKind::Bool,
        Ok(serde_yaml::Value::Number(_)) => ScalarKind::Number,
        _ => ScalarKind::Text,
    };
    Value::Scalar(Scalar { text: text.to_owned(), kind })
}

/// Byte offset of a node or key. `None` for a node that the text does not hold.
pub fn place(text: &str, id: NodeId) -> Option<usize> {
    if id == NodeId::NOWHERE {
        return None;
    }
    let count = Cell::new(0);
    let stopped = Seed { count: &count, stop_at: Some(id) }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    offset(text, &stopped)
}

fn syntax_error(text: &str, error: &serde_yaml::Error) -> SyntaxError {
    let message = error.to_string();
    // serde_yaml ends its messages with a position in its own words; the place is shown in ours.
    let message = message.find(" at line ").map_or(message.as_str(), |end| &message[..end]);
    let message = match message {
        text if text.starts_with("invalid type: enum") => {
            "tags such as `!name` have no meaning in a pipeline"
        }
        text if text.contains("cannot start any token") => {
            "a tab or another character that cannot stand here"
        }
        text => text,
    };
    SyntaxError { message: message.to_owned(), at: offset(text, error).unwrap_or(text.len()) }
}

/// serde_yaml counts characters; reports count bytes.
fn offset(text: &str, error: &serde_yaml::Error) -> Option<usize> {
    let at = error.location()?;
    let line_start: usize = text.split_inclusive('\n').take(at.line().saturating_sub(1)).map(str::len).sum();
    let line = &text[line_start.min(text.len())..];
    let column = line.char_indices().nth(at.column().saturating_sub(1)).map_or(line.len(), |(byte, _)| byte);
    Some((line_start + column).min(text.len()))
}

/// Reads a node by what YAML takes it for, or stops with an error at one node to learn its place.
#[derive(Clone, Copy)]
struct Seed<'a> {
    count: &'a Cell<u32>,
    stop_at: Option<NodeId>,
}

impl Seed<'_> {
    fn next<E: serde::de::Error>(self) -> Result<NodeId, E> {
        self.count.set(self.count.get() + 1);
        let id = NodeId(self.count.get());
        if self.stop_at == Some(id) { Err(E::custom("here")) } else { Ok(id) }
    }

    fn scalar<E: serde::de::Error>(self, kind: ScalarKind) -> Result<Node, E> {
        Ok(Node { id: self.next()?, value: Value::Scalar(Scalar { text: String::new(), kind }) })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a mapping, list or scalar without a tag")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node { id: self.next()?, value: Value::Null })
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Node, E> {
        self.scalar(ScalarKind::Bool)
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Node, E> {
        self.scalar(ScalarKind::Number)
    }
    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Node, E> {
        self.scalar(ScalarKind::Number)
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Node, E> {
        self.scalar(ScalarKind::Number)
    }
    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Node, E> {
        self.scalar(ScalarKind::Number)
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node, E> {
        self.scalar(ScalarKind::Number)
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Node, E> {
        self.scalar(ScalarKind::Text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let id = self.next()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node { id, value: Value::List(list) })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let id = self.next()?;
        let mut map = Vec::new();
        while let Some(key) = pairs.next_key_seed(self)? {
            if matches!(key.value, Value::List(_) | Value::Map(_)) {
                return Err(A::Error::custom("a key must be a plain word"));
            }
            map.push((Key { id: key.id, text: String::new() }, pairs.next_value_seed(self)?));
        }
        Ok(Node { id, value: Value::Map(map) })
    }
}

/// Reads the same text again, guided by its shape, and asks for the text of every scalar.
struct TextSeed(Node);

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Node;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        match &self.0.value {
            Value::Null | Value::Scalar(_) => from.deserialize_str(self),
            Value::List(_) => from.deserialize_seq(self),
            Value::Map(_) => from.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the same text again")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        let Node { id, value } = self.0;
        let value = match value {
            Value::Scalar(Scalar { kind, .. }) => Value::Scalar(Scalar { text: text.to_owned(), kind }),
            other => other,
        };
        Ok(Node { id, value })
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let Node { id, value: Value::List(shapes) } = self.0 else {
            return Err(A::Error::custom("the text changed"));
        };
        let mut list = Vec::with_capacity(shapes.len());
        for shape in shapes {
            let item = items.next_element_seed(Self(shape))?;
            list.push(item.ok_or_else(|| A::Error::custom("the text changed"))?);
        }
        // The sequence must be read to its end.
        items.next_element::<serde::de::IgnoredAny>()?;
        Ok(Node { id, value: Value::List(list) })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let Node { id, value: Value::Map(shapes) } = self.0 else {
            return Err(A::Error::custom("the text changed"));
        };
        let mut map = Vec::with_capacity(shapes.len());
        for (key, shape) in shapes {
            let text = pairs.next_key::<String>()?.ok_or_else(|| A::Error::custom("the text changed"))?;
            map.push((Key { id: key.id, text }, pairs.next_value_seed(Self(shape))?));
        }
        pairs.next_key::<serde::de::IgnoredAny>()?;
        Ok(Node { id, value: Value::Map(map) })
    }
}

/// Replaces `<<: *defaults` by the pairs it names; pairs written out win.
fn merge(node: &mut Node) -> Result<(), (NodeId, String)> {
    match &mut node.value {
        Value::List(items) => items.iter_mut().try_for_each(merge),
        Value::Map(pairs) => {
            pairs.iter_mut().try_for_each(|(_, value)| merge(value))?;
            while let Some(at) = pairs.iter().position(|(key, _)| key.text == "<<") {
                let (_, merged) = pairs.remove(at);
                let sources = match merged.value {
                    Value::List(items) => items,
                    value => vec![Node { id: merged.id, value }],
                };
                for source in sources {
                    let Value::Map(more) = source.value else {
                        return Err((source.id, "`<<` takes a mapping or a list of mappings".into()));
                    };
                    for (key, value) in more {
                        if !pairs.iter().any(|(own, _)| own.text == key.text) {
                            pairs.push((key, value));
                        }
                    }
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of the scalars and keys that read `word`, as (line, column) counted from 1.
    fn places(text: &str, word: &str) -> Vec<(usize, usize)> {
        fn walk(node: &Node, word: &str, found: &mut Vec<NodeId>) {
            match &node.value {
                Value::Scalar(scalar) if scalar.text == word => found.push(node.id),
                Value::List(items) => items.iter().for_each(|item| walk(item, word, found)),
                Value::Map(pairs) => {
                    for (key, value) in pairs {
                        if key.text == word {
                            found.push(key.id);
                        }
                        walk(value, word, found);
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(&parse(text).unwrap(), word, &mut found);
        let line_column = |at: usize| {
            let before = &text[..at];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            (before.matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
        };
        found.into_iter().map(|id| line_column(place(text, id).unwrap())).collect()
    }

    #[test]
    fn scalars_keep_their_text() {
        let text = "a: 1.10\nb: 0x1F\nc: 1e-3\nd: yes\ne: \"5\"\nf: ~\ng: 1_000\n";
        let Value::Map(pairs) = parse(text).unwrap().value else { panic!("not a map") };
        let texts: Vec<_> = pairs.iter().map(|(_, node)| node.text()).collect();
        assert_eq!(
            texts,
            [Some("1.10"), Some("0x1F"), Some("1e-3"), Some("yes"), Some("5"), None, Some("1_000")]
        );
    }

    #[test]
    fn every_node_and_key_has_its_place() {
        let text =
            "# über\nname: über\nstages:\n  a: { uses: x, with: [1, { deep: 2 }] }\n  ä: { uses: y }\n";
        assert_eq!(places(text, "über"), [(2, 7)]);
        assert_eq!(places(text, "deep"), [(4, 29)]);
        assert_eq!(places(text, "2"), [(4, 35)]);
        assert_eq!(places(text, "ä"), [(5, 3)]);
        assert_eq!(places(text, "uses"), [(4, 8), (5, 8)]);
    }

    #[test]
    fn aliases_and_merges_keep_the_place_of_their_anchor() {
        let text = "base: &b { k: 1, l: 2 }\nuse:\n  <<: *b\n  l: 3\n";
        assert_eq!(places(text, "1"), [(1, 15), (1, 15)]);
        assert_eq!(places(text, "2"), [(1, 21)]);
        assert_eq!(places(text, "3"), [(4, 6)]);
    }

    #[test]
    fn a_key_may_be_written_twice_and_both_are_kept() {
        let Value::Map(pairs) = parse("a: 1\na: 2\n").unwrap().value else { panic!("not a map") };
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn hostile_text_is_an_error_with_a_place() {
        for text in ["a: [1", "a: !tag x", "? [1, 2]\n: x", "a: b: c", "\t", "a: *nowhere", "---\na\n---\nb"]
        {
            let error = parse(text).expect_err(text);
            assert!(error.at <= text.len() && !error.message.is_empty(), "{text}: {error:?}");
        }
        let deep = "[".repeat(20_000);
        parse(&deep).expect_err("20,000 nested lists");
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(b'b'..=b'k')
                .map(|c| {
                    let (name, before) = (c as char, (c - 1) as char);
                    format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","))
                })
                .collect::<String>();
        assert!(parse(&laughs).expect_err("a billion laughs").message.contains("repetition limit"));
    }
}
