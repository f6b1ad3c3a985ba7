//! Texts kept under `cases/`: compared as a whole, written anew with `PIPE_UPDATE_GOLDEN=1`.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder below `tests/cases`.
pub(crate) fn cases(name: &str) -> PathBuf {
    root().join("tests/cases").join(name)
}

/// Compares `found` with the text of a file; the error shows both.
pub(crate) fn compare(file: &Path, found: &str) -> Result<(), String> {
    if std::env::var_os("PIPE_UPDATE_GOLDEN").is_some() {
        return std::fs::write(file, found).map_err(|error| format!("{}: {error}", file.display()));
    }
    let shown = file.strip_prefix(root()).unwrap_or(file).display();
    let expected = std::fs::read_to_string(file)
        .map_err(|error| format!("{shown}: {error}; PIPE_UPDATE_GOLDEN=1 writes it"))?;
    if expected == found {
        return Ok(());
    }
    Err(format!("{shown} says\n{expected}\n--- but found\n{found}\n--- PIPE_UPDATE_GOLDEN=1 writes it anew"))
}

#[track_caller]
pub(crate) fn check(file: &Path, found: &str) {
    if let Err(difference) = compare(file, found) {
        panic!("{difference}");
    }
}
