//! One unambiguous byte encoding of a JSON value, for hashing.
//!
//! A value is a tag byte and a body; integers are little-endian:
//!
//! | value | tag | body |
//! |---|---|---|
//! | null | 0 | |
//! | false, true | 1 | one byte, 0 or 1 |
//! | text | 3 | length `u64`, UTF-8 |
//! | list | 4 | length `u64`, its values |
//! | map | 5 | length `u64`, then text and value of each, by text in byte order |
//! | integer ≥ 0 | 6 | `u64` |
//! | integer < 0 | 7 | `i64` |
//! | any other number | 8 | bits of the `f64` |
//!
//! `1` and `1.0` are different values: a program that is handed one of them as text can tell. A stage's
//! typed params write a field always in the same way, so this never splits one value in two.

use crate::digest::Digest;
use blake3::Hasher;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// Hashes `value` in the domain `name`, so that equal values of two kinds of key differ.
pub(crate) fn hash(name: &str, version: u32, value: &Value) -> Digest {
    let mut hasher = Hasher::new();
    put_text(name, &mut hasher);
    hasher.update(&version.to_le_bytes());
    put(value, &mut hasher);
    Digest(*hasher.finalize().as_bytes())
}

fn put(value: &Value, hasher: &mut Hasher) {
    match value {
        Value::Null => {
            hasher.update(&[0]);
        }
        Value::Bool(yes) => {
            hasher.update(&[1, u8::from(*yes)]);
        }
        Value::Number(number) => put_number(number, hasher),
        Value::String(text) => put_text(text, hasher),
        Value::Array(items) => {
            put_length(4, items.len(), hasher);
            for item in items {
                put(item, hasher);
            }
        }
        Value::Object(map) => {
            put_length(5, map.len(), hasher);
            // Sorted here, whatever order serde_json was built to keep.
            for (name, item) in map.iter().collect::<BTreeMap<_, _>>() {
                put_text(name, hasher);
                put(item, hasher);
            }
        }
    }
}

fn put_number(number: &Number, hasher: &mut Hasher) {
    if let Some(natural) = number.as_u64() {
        hasher.update(&[6]).update(&natural.to_le_bytes());
    } else if let Some(integer) = number.as_i64() {
        hasher.update(&[7]).update(&integer.to_le_bytes());
    } else {
        let float = number.as_f64().expect("a JSON number is an integer or a float");
        hasher.update(&[8]).update(&float.to_bits().to_le_bytes());
    }
}

fn put_text(text: &str, hasher: &mut Hasher) {
    put_length(3, text.len(), hasher);
    hasher.update(text.as_bytes());
}

fn put_length(tag: u8, length: usize, hasher: &mut Hasher) {
    hasher.update(&[tag]).update(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn values_that_differ_have_different_hashes() {
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(1),
            json!(1.0),
            json!(-1),
            json!(-1.0),
            json!(0.0),
            json!(-0.0),
            json!(0.1),
            json!(0.1f32),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e300),
            json!(""),
            json!("1"),
            json!("null"),
            json!([]),
            json!([[]]),
            json!([1, 2]),
            json!([2, 1]),
            json!([[1], 2]),
            json!([[1, 2]]),
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!({}),
            json!({"a": 1}),
            json!({"a": null}),
            json!(["a", 1]),
            json!({"a": {"b": 1}}),
            json!({"a": 1, "b": 1}),
        ];
        let hashes: BTreeSet<_> = values.iter().map(|value| hash("test", 1, value)).collect();
        assert_eq!(hashes.len(), values.len());
    }

    #[test]
    fn the_domain_and_its_version_are_part_of_the_hash() {
        let hashes = [hash("a", 1, &json!(1)), hash("b", 1, &json!(1)), hash("a", 2, &json!(1))];
        assert_eq!(BTreeSet::from(hashes).len(), 3);
    }

    #[test]
    fn the_order_in_which_a_map_was_written_is_not_part_of_the_hash() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap();
        assert_eq!(hash("test", 1, &one), hash("test", 1, &two));
    }
}
