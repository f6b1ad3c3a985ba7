//! Any files, with no meaning that pipe knows: what `command` stages exchange.

use crate::artifact::Artifact;
use crate::error::StageError;
use fs_err as fs;
use std::path::{Path, PathBuf};

/// A directory of files with no meaning that pipe knows. Holds the path only.
#[derive(Debug, Clone)]
pub struct Files(pub PathBuf);

impl Artifact for Files {
    const TYPE: &'static str = "files";
    const FORMAT: u32 = 1;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self(dir.to_owned()))
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        copy_tree(&self.0, dir)
    }
}

/// Copies a directory into `to`, which is created. The copies are writable whatever the originals are.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::create_dir_all(to).map_err(StageError::io("create", to))?;
    let entries = fs::read_dir(from).map_err(StageError::io("list", from))?;
    for entry in entries {
        let source = entry.map_err(StageError::io("list", from))?.path();
        let target = to.join(source.file_name().unwrap_or_default());
        // A link stands for what it holds.
        let kind = fs::metadata(&source).map_err(StageError::io("look at", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if !kind.is_file() {
            return Err(StageError::Data(format!(
                "`{}` is neither a file nor a folder, but a pipe, socket or device; remove it",
                source.display()
            )));
        } else {
            fs::copy(&source, &target).map_err(StageError::io("copy", &source))?;
            let mut permissions =
                fs::metadata(&target).map_err(StageError::io("look at", &target))?.permissions();
            #[expect(
                clippy::permissions_set_readonly_false,
                reason = "a fresh copy of ours, in a folder of ours"
            )]
            permissions.set_readonly(false);
            fs::set_permissions(&target, permissions).map_err(StageError::io("make writable", &target))?;
        }
    }
    Ok(())
}
