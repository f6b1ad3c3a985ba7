//! [`Node`]s to typed values: a serde deserializer that parses a scalar's text into whatever type is asked for, and
//! remembers the node at which decoding failed.

use crate::problem::did_you_mean;
use crate::yaml::{Key, Node, NodeId, Scalar, ScalarKind, Value};
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
};
use serde::de::{VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::Cell;
use std::fmt;

/// Why a value could not be decoded, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
    fn invalid_type(unexpected: serde::de::Unexpected, expected: &dyn serde::de::Expected) -> Self {
        Self(format!("expected {expected}, found {unexpected}"))
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown value `{variant}`{}, expected {}", meant(variant, expected), one_of(expected)))
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown parameter `{field}`{}, expected {}", meant(field, expected), one_of(expected)))
    }
    fn missing_field(field: &'static str) -> Self {
        Self(format!("missing parameter `{field}`"))
    }
}

/// ` (did you mean …?)` where one is close.
fn meant(word: &str, known: &[&str]) -> String {
    did_you_mean(word, known.iter().copied())
        .map(|name| format!(" (did you mean `{name}`?)"))
        .unwrap_or_default()
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing here".into(),
        [name] => format!("`{name}`"),
        names => format!("one of `{}`", names.join("`, `")),
    }
}

/// Reads a typed value from a node; `failed` then holds the innermost node that did not fit.
#[derive(Clone, Copy)]
pub struct Decoder<'a> {
    node: &'a Node,
    failed: &'a Cell<Option<NodeId>>,
}

impl<'a> Decoder<'a> {
    pub fn new(node: &'a Node, failed: &'a Cell<Option<NodeId>>) -> Self {
        Self { node, failed }
    }

    fn at(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    /// Remembers this node unless a node inside it failed first.
    fn note<T>(self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        if result.is_err() && self.failed.get().is_none() {
            self.failed.set(Some(self.node.id));
        }
        result
    }

    fn wrong<T>(self, expected: &str) -> Result<T, DecodeError> {
        Err(DecodeError(format!("expected {expected}, found {}", self.node.describe())))
    }

    fn parse<T: std::str::FromStr>(self, expected: &str) -> Result<T, DecodeError> {
        let text = self.node.text().map(|text| text.replace('_', ""));
        text.and_then(|text| text.parse().ok()).map_or_else(|| self.wrong(expected), Ok)
    }
}

macro_rules! whole_number {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let expected = format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
            self.note(self.parse::<$type>(&expected).and_then(|number| visitor.$visit(number)))
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar(Scalar { text, kind }) => match kind {
                ScalarKind::Bool => visitor.visit_bool(text.eq_ignore_ascii_case("true")),
                ScalarKind::Number => {
                    let digits = text.replace('_', "");
                    if let Ok(number) = digits.parse::<u64>() {
                        visitor.visit_u64(number)
                    } else if let Ok(number) = digits.parse::<i64>() {
                        visitor.visit_i64(number)
                    } else {
                        self.parse("a number").and_then(|number| visitor.visit_f64(number))
                    }
                }
                ScalarKind::Text => visitor.visit_str(text),
            },
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), decoder: self }),
            Value::Map(pairs) => {
                visitor.visit_map(Pairs { entries: pairs.iter(), value: None, decoder: self })
            }
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(match self.node.text() {
            Some("true" | "True" | "TRUE") => visitor.visit_bool(true),
            Some("false" | "False" | "FALSE") => visitor.visit_bool(false),
            _ => self.wrong("true or false"),
        })
    }

    whole_number! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(self.parse("a whole number, 0 or more").and_then(|number| visitor.visit_u64(number)))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(self.parse::<f64>("a number").and_then(|number| {
            if number.is_finite() { visitor.visit_f64(number) } else { self.wrong("a finite number") }
        }))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(match self.node.text() {
            Some(text) => visitor.visit_str(text),
            None => self.wrong("text"),
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.note(if self.node.value == Value::Null { visitor.visit_unit() } else { self.wrong("nothing") })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => self.note(self.wrong("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(items) if items.len() == length => self.deserialize_any(visitor),
            Value::List(items) => self
                .note(Err(DecodeError(format!("expected a list of {length} values, found {}", items.len())))),
            _ => self.note(self.wrong(&format!("a list of {length} values"))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            // `with:` with nothing under it
            Value::Null => {
                self.note(visitor.visit_map(Pairs { entries: [].iter(), value: None, decoder: self }))
            }
            Value::Map(_) => self.deserialize_any(visitor),
            _ => self.note(self.wrong("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.note(match &self.node.value {
            Value::Scalar(scalar) => visitor.visit_enum(Word { text: &scalar.text }),
            Value::Map(pairs) if pairs.len() == 1 => {
                visitor.visit_enum(Variant { name: &pairs[0].0, content: self.at(&pairs[0].1) })
            }
            _ => self.wrong("a word or a mapping with one key"),
        })
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit_struct tuple_struct identifier ignored_any }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    decoder: Decoder<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.items.next().map(|item| seed.deserialize(self.decoder.at(item))).transpose()
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Pairs<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
    decoder: Decoder<'a>,
}

impl<'de> MapAccess<'de> for Pairs<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StrDeserializer<DecodeError> = key.text.as_str().into_deserializer();
        seed.deserialize(name).map(Some).inspect_err(|_| {
            if self.decoder.failed.get().is_none() {
                self.decoder.failed.set(Some(key.id));
            }
        })
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let value = self.value.take().ok_or_else(|| DecodeError::custom("a value before its key"))?;
        seed.deserialize(self.decoder.at(value))
    }
}

struct Variant<'a> {
    name: &'a Key,
    content: Decoder<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = DecodeError;
    type Variant = Decoder<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), DecodeError> {
        let name: StrDeserializer<DecodeError> = self.name.text.as_str().into_deserializer();
        let variant = seed.deserialize(name).inspect_err(|_| self.content.failed.set(Some(self.name.id)))?;
        Ok((variant, self.content))
    }
}

/// A choice by its name alone; what has parameters takes their defaults.
struct Word<'a> {
    text: &'a str,
}

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let name: StrDeserializer<DecodeError> = self.text.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        let nothing = MapDeserializer::<_, DecodeError>::new(std::iter::empty::<(&str, &str)>());
        let needs = |error: DecodeError| DecodeError(format!("`{}` needs parameters: {error}", self.text));
        seed.deserialize(nothing).map_err(needs)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError(format!("`{}` needs a list", self.text)))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_map(MapDeserializer::<_, DecodeError>::new(std::iter::empty::<(&str, &str)>()))
    }
}

impl<'de> VariantAccess<'de> for Decoder<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        self.note(if self.node.value == Value::Null { Ok(()) } else { self.wrong("nothing") })
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(length, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Params {
        folds: u32,
        #[serde(default)]
        rate: Option<f64>,
        #[serde(default)]
        spacing: Option<[f64; 3]>,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        free: Free,
    }
    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        #[default]
        EachCase,
        Prefix(String),
        Sized(Size),
    }
    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Size {
        width: u32,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(untagged)]
    enum Free {
        Number(f64),
        Words(Vec<String>),
    }
    impl Default for Free {
        fn default() -> Self {
            Self::Number(0.0)
        }
    }

    fn decode(text: &str) -> Result<Params, (String, String)> {
        let node = crate::yaml::parse(text).unwrap();
        let failed = Cell::new(None);
        Params::deserialize(Decoder::new(&node, &failed)).map_err(|error| {
            let at = crate::yaml::place(text, failed.get().unwrap()).unwrap();
            (error.to_string(), text[at..].chars().take(8).collect())
        })
    }

    #[track_caller]
    fn check(text: &str, message: &str, at: &str) {
        let (got, place) = decode(text).expect_err(text);
        assert!(got.contains(message), "got: {got}");
        assert!(place.starts_with(at), "got place: {place}");
    }

    #[test]
    fn text_becomes_the_type_asked_for() {
        let params =
            decode("{ folds: \"5\", rate: 3e-3, spacing: [1, 1.5, \"2\"], mode: each-case, free: 7 }");
        let expected = Params {
            folds: 5,
            rate: Some(3e-3),
            spacing: Some([1.0, 1.5, 2.0]),
            mode: Mode::EachCase,
            free: Free::Number(7.0),
        };
        assert_eq!(params.unwrap(), expected);
        let params = decode("{ folds: 1, rate: ~, mode: { prefix: ab }, free: [a, b] }").unwrap();
        assert_eq!((params.rate, params.mode), (None, Mode::Prefix("ab".into())));
    }

    #[test]
    fn a_choice_by_its_name_alone_has_its_defaults() {
        let mode = |text: &str| decode(&format!("{{ folds: 1, mode: {text} }}")).map(|params| params.mode);
        assert_eq!(mode("sized").unwrap(), Mode::Sized(Size { width: 0 }));
        assert_eq!(mode("{ sized: {} }").unwrap(), Mode::Sized(Size { width: 0 }));
        assert_eq!(mode("{ sized: { width: 3 } }").unwrap(), Mode::Sized(Size { width: 3 }));
        let (message, place) = mode("prefix").unwrap_err();
        assert!(message.contains("`prefix` needs parameters"), "{message}");
        assert!(place.starts_with("prefix"), "{place}");
    }

    #[test]
    fn errors_name_the_innermost_node() {
        check("{ folds: three }", "expected a whole number from 0 to 4294967295, found `three`", "three");
        check("{ folds: -1 }", "found `-1`", "-1");
        check("{ folds: [1] }", "found a list", "[1]");
        check("{ folds: 1, fold: 2 }", "unknown parameter `fold`", "fold: 2");
        check("{ folds: 1, spacing: [1, x, 2] }", "expected a number, found `x`", "x, 2");
        check("{ folds: 1, spacing: [1, 2] }", "a list of 3 values, found 2", "[1, 2]");
        check("{ folds: 1, rate: .nan }", "found `.nan`", ".nan");
        check(
            "{ folds: 1, mode: { prefx: a } }",
            "unknown value `prefx` (did you mean `prefix`?), expected",
            "prefx",
        );
        check(
            "{ folds: 1, mode: { zebra: a } }",
            "unknown value `zebra`, expected one of `each-case`",
            "zebra",
        );
        check("{ rate: 1 }", "missing parameter `folds`", "{ rate");
    }
}
