//! Small files with a checksum, one value each: the form of all records that decide what is served.
//!
//! The first line is `pipe <name> <version> <BLAKE3 of the rest>`, the rest is JSON. A file that is cut,
//! damaged, of another kind or of another version is [`Found::Corrupt`], never a value.

use crate::digest::Digest;
use crate::files;
use crate::layout::Layout;
use crate::quarantine;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Kind and version of a record, in its first line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
}

/// What stands under the name of a record.
#[derive(Debug)]
pub(crate) enum Found<T> {
    Absent,
    Record(T),
    /// Something else, with the reason.
    Corrupt(String),
}

/// Writes a record under a name that must not exist; `false` when somebody else was first.
pub(crate) fn write_new<T: Serialize>(
    layout: &Layout,
    path: &Path,
    format: Format,
    value: &T,
) -> io::Result<bool> {
    files::write_new(layout, path, &encode(format, value)?)
}

/// Writes a record in place of what is there.
pub(crate) fn replace<T: Serialize>(
    layout: &Layout,
    path: &Path,
    format: Format,
    value: &T,
) -> io::Result<()> {
    let bytes = encode(format, value)?;
    match files::replace(layout, path, &bytes) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            quarantine::reject(layout, path, format.name)?;
            files::replace(layout, path, &bytes)
        }
        result => result,
    }
}

/// Reads a record. An error only where the file system fails.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, format: Format) -> io::Result<Found<T>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(decode(&bytes, format).map_or_else(Found::Corrupt, Found::Record)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Absent),
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            Ok(Found::Corrupt("it is a folder".to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn encode<T: Serialize>(format: Format, value: &T) -> io::Result<Vec<u8>> {
    let mut body = serde_json::to_vec(value)?;
    body.push(b'\n');
    let head = format!("pipe {} {} {}\n", format.name, format.version, Digest::of_bytes(&body));
    Ok([head.into_bytes(), body].concat())
}

fn decode<T: DeserializeOwned>(bytes: &[u8], format: Format) -> Result<T, String> {
    let line = bytes.iter().position(|&byte| byte == b'\n').ok_or("it is cut short")?;
    let (head, body) = (&bytes[..line], &bytes[line + 1..]);
    let expected = format!("pipe {} {} ", format.name, format.version);
    let checksum = head
        .strip_prefix(expected.as_bytes())
        .ok_or_else(|| format!("it does not begin with `{expected}`"))?;
    if checksum != Digest::of_bytes(body).to_string().as_bytes() {
        return Err("its checksum does not fit its content".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { name: "test", version: 3 };

    #[test]
    fn a_record_reads_back() {
        let value = vec!["one".to_owned(), "two\nlines".to_owned()];
        assert_eq!(decode::<Vec<String>>(&encode(FORMAT, &value).unwrap(), FORMAT).unwrap(), value);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_corrupt() {
        let bytes = encode(FORMAT, &serde_json::json!({ "answer": 42 })).unwrap();
        for size in 0..bytes.len() {
            assert!(decode::<serde_json::Value>(&bytes[..size], FORMAT).is_err(), "{size} bytes");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[size] ^= 1 << bit;
                assert!(decode::<serde_json::Value>(&flipped, FORMAT).is_err(), "byte {size} bit {bit}");
            }
        }
        assert!(decode::<serde_json::Value>(&bytes, Format { version: 4, ..FORMAT }).is_err());
        assert!(decode::<serde_json::Value>(&bytes, Format { name: "tes", ..FORMAT }).is_err());
    }
}
