//! What a program left in its outputs, made fit for the cache: files and folders of the sandbox, nothing else.

use crate::error::StageError;
use fs_err as fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Replaces every symbolic link below `folder` by what it leads to, and makes sure that folders can be moved from.
///
/// A link that leads out of `sandbox`, or in a circle, is an error: a result must not depend on what lies elsewhere.
/// `shown` is the folder as the program knows it.
pub(super) fn settle(folder: &Path, shown: &Path, sandbox: &Path) -> Result<(), StageError> {
    let mut links = Vec::new();
    scan(folder, shown, &mut links)?;
    if links.is_empty() {
        return Ok(());
    }
    let sandbox = fs::canonicalize(sandbox).map_err(StageError::io("find", sandbox))?;
    let mut resolved = Vec::new();
    for (link, shown) in links {
        resolved.push((resolve(&link, &shown, &sandbox)?, link, shown));
    }
    for (target, link, shown) in resolved {
        fs::remove_file(&link).map_err(StageError::io("replace", &shown))?;
        copy(&target, &link, &shown, &sandbox)?;
    }
    Ok(())
}

/// Collects the links below a folder; anything but links, files and folders is an error.
fn scan(folder: &Path, shown: &Path, links: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), StageError> {
    let metadata = fs::symlink_metadata(folder).map_err(StageError::io("look at", shown))?;
    let mode = metadata.permissions().mode();
    if mode & 0o700 != 0o700 {
        let permissions = std::fs::Permissions::from_mode(mode | 0o700);
        fs::set_permissions(folder, permissions).map_err(StageError::io("make writable", shown))?;
    }
    for entry in fs::read_dir(folder).map_err(StageError::io("list", shown))? {
        let entry = entry.map_err(StageError::io("list", shown))?;
        let (path, shown) = (entry.path(), shown.join(entry.file_name()));
        let kind = entry.file_type().map_err(StageError::io("look at", &shown))?;
        if kind.is_dir() {
            scan(&path, &shown, links)?;
        } else if kind.is_symlink() {
            links.push((path, shown));
        } else if !kind.is_file() {
            return Err(StageError::Data(format!(
                "`{}` is neither a file nor a folder, but a pipe, socket or device; remove it",
                shown.display()
            )));
        }
    }
    Ok(())
}

/// Where a link leads in the end.
fn resolve(link: &Path, shown: &Path, sandbox: &Path) -> Result<PathBuf, StageError> {
    let target = fs::read_link(link).map_err(StageError::io("read the link", shown))?;
    let refuse = |why: &str| {
        StageError::Data(format!(
            "`{}` is a symbolic link to `{}`, which {why}; write the file itself",
            shown.display(),
            target.display()
        ))
    };
    let found = fs::canonicalize(link).map_err(|_| refuse("is not there"))?;
    if !found.starts_with(sandbox) {
        return Err(refuse("is outside of the sandbox"));
    }
    let holder = link.parent().map(fs::canonicalize).transpose().map_err(StageError::io("find", shown))?;
    if holder.is_some_and(|holder| holder.starts_with(&found)) {
        return Err(refuse("holds the link"));
    }
    Ok(found)
}

/// Copies a file or a folder; links in it stand for files.
fn copy(from: &Path, to: &Path, shown: &Path, sandbox: &Path) -> Result<(), StageError> {
    let metadata = fs::metadata(from).map_err(StageError::io("look at", shown))?;
    if !metadata.is_dir() {
        fs::copy(from, to).map_err(StageError::io("copy", shown))?;
        return Ok(());
    }
    fs::create_dir(to).map_err(StageError::io("create", shown))?;
    for entry in fs::read_dir(from).map_err(StageError::io("list", shown))? {
        let entry = entry.map_err(StageError::io("list", shown))?;
        let (mut source, shown) = (entry.path(), shown.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            source = resolve(&source, &shown, sandbox)?;
            if source.is_dir() {
                let message = "is a link to a folder inside of a linked folder; write the files themselves";
                return Err(StageError::Data(format!("`{}` {message}", shown.display())));
            }
        }
        copy(&source, &to.join(entry.file_name()), &shown, sandbox)?;
    }
    Ok(())
}

/// Names every file below a folder, and every folder without files.
pub(super) fn files_below(folder: &Path, shown: &Path, names: &mut Vec<String>) -> Result<(), StageError> {
    let before = names.len();
    for entry in fs::read_dir(folder).map_err(StageError::io("list", shown))? {
        let entry = entry.map_err(StageError::io("list", shown))?;
        let shown = shown.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&entry.path(), &shown, names)?;
        } else {
            names.push(shown.display().to_string());
        }
    }
    if names.len() == before {
        names.push(format!("{}/", shown.display()));
    }
    Ok(())
}
