//! Candidates for the runtime library on this machine, and whether each can be used. Changes nothing on disk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{OLDEST_MINOR, Origin, RuntimeInfo};

/// Prints the folder of the installed `onnxruntime` package without importing it. The working folder is taken off
/// the search path: a library must not be loaded because a folder of that name lies about.
const FIND_PACKAGE: &str = "\
import importlib.util, os, sys
sys.path = [p for p in sys.path if p]
spec = importlib.util.find_spec('onnxruntime')
print(os.path.dirname(spec.origin) if spec and spec.origin else '')
";

/// Why a place gave no library.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nothing is there.
    Absent(String),
    /// Something is there and cannot be used.
    Unusable(String),
}

/// Why a Python gave no library.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PythonMiss {
    /// It does not exist or does not start.
    NoInterpreter(String),
    /// It works, its package does not.
    Package(Miss),
}

/// Checks the library that the user named; the error completes a sentence that names it.
pub(super) fn explicit(path: &Path) -> Result<RuntimeInfo, String> {
    // A relative path means the working folder, as everywhere; the binding would start at the executable's.
    let path = std::path::absolute(path).map_err(|error| format!("is not a path: {error}"))?;
    let metadata = fs_err::metadata(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    let library = if metadata.is_dir() {
        library_in(&path).ok_or("is a folder without an ONNX Runtime library")?
    } else {
        path
    };
    usable(&library, Origin::Environment)
}

/// Looks into a folder that pip or a user filled.
pub(super) fn folder(folder: &Path, origin: Origin) -> Result<RuntimeInfo, Miss> {
    let library =
        library_in(folder).ok_or_else(|| Miss::Absent(format!("no library in `{}`", folder.display())))?;
    usable(&library, origin)
        .map_err(|reason| Miss::Unusable(format!("`{}` {reason}; it is passed over", library.display())))
}

/// Asks a Python for its `onnxruntime` package.
pub(super) fn python(python: &Path) -> Result<RuntimeInfo, PythonMiss> {
    let name = python.display();
    let output = find_package(python)
        .output()
        .map_err(|error| PythonMiss::NoInterpreter(format!("{name}: does not start: {error}")))?;
    if !output.status.success() {
        let line = format!("{name}: fails with {}: {}", output.status, last_line(&output.stderr));
        return Err(PythonMiss::NoInterpreter(line));
    }
    let package = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if package.is_empty() {
        let line = format!("{name}: no package `onnxruntime` in its site-packages");
        return Err(PythonMiss::Package(Miss::Absent(line)));
    }
    folder(&Path::new(&package).join("capi"), Origin::Python).map_err(|miss| {
        PythonMiss::Package(match miss {
            Miss::Absent(line) => Miss::Absent(format!("{name}: {line}")),
            Miss::Unusable(line) => Miss::Unusable(format!("{name}: {line}")),
        })
    })
}

fn find_package(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", FIND_PACKAGE]).stdin(Stdio::null());
    command
}

/// Returns the library file in a folder, or where a Python package keeps it below that folder. Of several versions,
/// the last by name.
pub(super) fn library_in(folder: &Path) -> Option<PathBuf> {
    let places = [folder.to_path_buf(), folder.join("onnxruntime").join("capi")];
    places.iter().find_map(|place| {
        let entries = std::fs::read_dir(place).ok()?;
        let files = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file());
        files.filter(|path| is_library(path)).max()
    })
}

/// Tells `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib` and `onnxruntime.dll` from the provider libraries
/// beside them.
pub(super) fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let dylib = name.strip_prefix("libonnxruntime.").is_some_and(|rest| {
        rest == "so" || rest.starts_with("so.") || path.extension().is_some_and(|kind| kind == "dylib")
    });
    dylib || name == "onnxruntime.dll"
}

/// Opens a library and asks its version; the error completes a sentence that names the file.
pub(super) fn usable(library: &Path, origin: Origin) -> Result<RuntimeInfo, String> {
    let path = fs_err::canonicalize(library).map_err(|error| format!("cannot be read: {error}"))?;
    let Some(minor) = ort::util::probe(&path) else {
        // The probe does not say why, so the loader is asked once more.
        return Err(match ort::util::preload_dylib(&path) {
            Err(error) => format!("cannot be loaded: {error}"),
            Ok(()) => "is not an ONNX Runtime 1.x library".to_owned(),
        });
    };
    if minor < OLDEST_MINOR {
        return Err(format!("is version 1.{minor}, but 1.{OLDEST_MINOR} or later is needed"));
    }
    Ok(RuntimeInfo { version: exact_version(&path, minor), path, origin })
}

/// Completes the version that the library itself told (`1.minor`) by its patch number: from the file's name, else
/// from the only version text of that minor among the library's constants, else `x`.
fn exact_version(path: &Path, minor: u32) -> String {
    let prefix = format!("1.{minor}.");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = name.find(&prefix).and_then(|at| patch(&name.as_bytes()[at + prefix.len()..]));
    let patch = named.or_else(|| embedded_patch(&fs_err::read(path).ok()?, prefix.as_bytes()));
    format!("{prefix}{}", patch.as_deref().unwrap_or("x"))
}

/// Finds `\0<prefix><digits>\0`, and returns the digits if all its occurrences agree.
fn embedded_patch(bytes: &[u8], prefix: &[u8]) -> Option<String> {
    let mut found: Option<String> = None;
    for part in bytes.split(|byte| *byte == 0) {
        let Some(rest) = part.strip_prefix(prefix) else { continue };
        let digits = patch(rest).filter(|digits| digits.len() == rest.len());
        if digits.is_some() && found.is_some() && found != digits {
            return None;
        }
        found = digits.or(found);
    }
    found
}

fn patch(bytes: &[u8]) -> Option<String> {
    let digits: String = bytes.iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
    Some(digits).filter(|digits| !digits.is_empty())
}

/// Returns the last line with text that a program wrote.
pub(super) fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_libraries_are_not_taken_for_the_runtime() {
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime.1.31.1.dylib",
            "onnxruntime.dll",
        ] {
            assert!(is_library(Path::new(name)), "{name}");
        }
        for name in [
            "libonnxruntime_providers_shared.so",
            "onnxruntime_providers_shared.dll",
            "libonnx.so",
            "libonnxruntime.txt",
        ] {
            assert!(!is_library(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_package_in_the_working_folder_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("onnxruntime")).expect("a package");
        std::fs::write(folder.path().join("onnxruntime/__init__.py"), "").expect("a package");
        let mut command = find_package(Path::new("python3"));
        let output = command.current_dir(folder.path()).output().expect("python3 starts");
        assert!(output.status.success(), "{output:?}");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!found.contains(&*folder.path().to_string_lossy()), "{found}");
    }

    #[test]
    fn the_patch_number_is_told_only_when_the_constants_agree() {
        assert_eq!(embedded_patch(b"..\x001.31.1\0VERS_1.31.1\x001.31.1\0", b"1.31."), Some("1".to_owned()));
        assert_eq!(embedded_patch(b"\x001.31.1\x001.31.2\0", b"1.31."), None);
        assert_eq!(embedded_patch(b"\x001.31.1-dev\0\x001.310.7\0", b"1.31."), None);
        assert_eq!(embedded_patch(b"", b"1.31."), None);
    }
}
