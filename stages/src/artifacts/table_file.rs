//! Reading and writing the CSV and JSON files inside artifacts: fixed columns, `\n` line ends, no float surprises.

use crate::error::StageError;
use fs_err as fs;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// Writes one line of column names, then one line a row. The header is written also when there is no row.
pub(crate) fn write_rows<T: Serialize>(path: &Path, columns: &[&str], rows: &[T]) -> Result<(), StageError> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let inner = |error: csv::Error| StageError::inner(format!("writing `{}`", path.display()))(error);
    writer.write_record(columns).map_err(inner)?;
    for row in rows {
        writer.serialize(row).map_err(inner)?;
    }
    let bytes = writer.into_inner().map_err(|error| StageError::Internal(error.to_string()))?;
    fs::write(path, bytes).map_err(StageError::io("write", path))
}

/// Reads every row by column name, so extra columns do not harm.
pub(crate) fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StageError> {
    let text = fs::read(path).map_err(StageError::io("read", path))?;
    let rows: Result<Vec<T>, csv::Error> = csv::Reader::from_reader(text.as_slice()).deserialize().collect();
    rows.map_err(StageError::malformed(path))
}

/// Writes indented JSON that ends with a line break.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StageError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(StageError::inner(format!("writing `{}`", path.display())))?;
    bytes.push(b'\n');
    fs::write(path, bytes).map_err(StageError::io("write", path))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StageError> {
    let bytes = fs::read(path).map_err(StageError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(StageError::malformed(path))
}

/// Rounds to seven significant digits, the precision of an `f32`: tables stay readable and free of float noise.
pub(crate) fn seven_digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().expect("a formatted number is a number")
}
