//! Where the files of a data set are, and which of them make a case. Looks into no image.

use super::layout::{self, Layout};
use super::phantom::observers;
use super::{Params, bids, table};
use crate::artifacts::Dataset;
use crate::context::{ExternalFile, ExternalFiles};
use crate::error::StageError;
use fs_err as fs;
use pipe_cache::hash_file;
use rayon::prelude::*;
use std::path::Path;

/// The files of a phantom that was just written below `root`, hashed.
pub(super) fn list(root: &Path, annotators: usize) -> Result<ExternalFiles, StageError> {
    let mut paths = vec![Dataset::MANIFEST.to_owned()];
    let own = [Dataset::IMAGES, Dataset::LABELS].map(str::to_owned);
    for folder in own.into_iter().chain((1..=annotators).map(observers::folder)) {
        let dir = root.join(&folder);
        for entry in fs::read_dir(&dir).map_err(StageError::io("list", &dir))? {
            let name = entry.map_err(StageError::io("list", &dir))?.file_name();
            paths.push(format!("{folder}/{}", name.to_string_lossy()));
        }
    }
    paths.sort();
    hashed(root, paths)
}

/// Files below `root` with digest and size.
pub(super) fn hashed(root: &Path, paths: Vec<String>) -> Result<ExternalFiles, StageError> {
    let file = |path: String| {
        let full = root.join(&path);
        let digest = hash_file(&full).map_err(StageError::inner("hashing the data set that was made"))?;
        let size = fs::metadata(&full).map_err(StageError::io("look at", &full))?.len();
        Ok(ExternalFile { path, digest, size })
    };
    let files: Result<Vec<_>, StageError> = paths.into_par_iter().map(file).collect();
    Ok(ExternalFiles { root: root.to_owned(), files: files? })
}

/// Whether something of the layout of the Decathlon is there, in the folder or in that of the task.
pub(super) fn holds_dataset(params: &Params, external: &ExternalFiles) -> bool {
    let own = [Dataset::MANIFEST, Dataset::IMAGES, Dataset::LABELS];
    let task = params.task.as_deref();
    external.files.iter().any(|file| {
        let inner = task.and_then(|task| file.path.strip_prefix(task)?.strip_prefix('/'));
        let first = |path: &str| own.contains(&path.split('/').next().unwrap_or(path));
        first(&file.path) || inner.is_some_and(first)
    })
}

/// The files of the data set itself, relative to its own root.
pub(super) fn dataset_files(params: &Params, external: &ExternalFiles) -> ExternalFiles {
    let inner = |file: &ExternalFile| {
        let path = file.path.strip_prefix(params.task.as_deref()?)?.strip_prefix('/')?;
        Some(ExternalFile { path: path.to_owned(), ..file.clone() })
    };
    let below: Vec<ExternalFile> = external.files.iter().filter_map(inner).collect();
    match &params.task {
        Some(task) if !below.is_empty() => ExternalFiles { root: external.root.join(task), files: below },
        _ => external.clone(),
    }
}

/// Which files make a case, by the table, the names of BIDS or the folders of the Decathlon.
pub(super) fn read_layout(params: &Params, files: &ExternalFiles) -> Result<Layout, StageError> {
    if let Some(suffixes) = &params.bids {
        return bids::read(suffixes, files);
    }
    if let Some(table) = &params.table {
        if !files.files.iter().any(|file| file.path == *table) {
            return Err(StageError::Data(format!(
                "`{}` holds no `{table}`, which should list the cases",
                params.from
            )));
        }
        let path = files.root.join(table);
        return table::read(table, &fs::read(&path).map_err(StageError::io("read", &path))?, &files.files);
    }
    let has_manifest = files.files.iter().any(|file| file.path == Dataset::MANIFEST);
    let path = files.root.join(Dataset::MANIFEST);
    let manifest =
        if has_manifest { Some(fs::read(&path).map_err(StageError::io("read", &path))?) } else { None };
    let layout = layout::read(manifest.as_deref(), &files.files);
    let name = &layout.dataset.name;
    match &params.task {
        // `Task04_Hippocampus` is the folder, `Hippocampus` the name inside `dataset.json`.
        Some(task)
            if files.root == Path::new(&params.from)
                && !name.is_empty()
                && task != name
                && !task.ends_with(&format!("_{name}")) =>
        {
            Err(StageError::Data(format!(
                "`{}` holds the data set `{name}`, not `{task}`, and no folder `{task}`",
                params.from
            )))
        }
        _ => Ok(layout),
    }
}
