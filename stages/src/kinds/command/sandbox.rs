//! The folder that a program works in: what it may read is laid out, what it did there is checked, its outputs are
//! handed over.

use super::{FILES, PARAMS, Params, list, outputs, plain};
use crate::context::StageContext;
use crate::error::StageError;
use fs_err as fs;
use pipe_cache::FileStat;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) struct Sandbox<'a> {
    params: &'a Params,
    work: &'a Path,
    scratch: &'a Path,
    /// What was laid out, relative to the working folder.
    placed: BTreeMap<PathBuf, Placed>,
}

#[derive(Debug, Clone, Copy)]
enum Placed {
    Folder,
    Copy(FileStat),
    /// Another name of a file of the cache.
    Shared(FileStat),
}

/// What a program did against the rules, by relative path.
#[derive(Debug, Default)]
struct Findings {
    strays: Vec<String>,
    changed: Vec<String>,
}

impl<'a> Sandbox<'a> {
    /// Inputs, files, parameters and empty outputs, where the program expects them.
    pub(super) fn lay_out(params: &'a Params, context: &'a StageContext) -> Result<Self, StageError> {
        let StageContext { work, scratch, .. } = context;
        let mut sandbox = Self { params, work, scratch, placed: BTreeMap::new() };
        for (name, inputs) in &context.inputs {
            let target = Path::new("in").join(name);
            sandbox.add_folder(&target)?;
            for input in inputs {
                let by_stage = inputs.len() > 1 || input.alone;
                let target = if by_stage { target.join(folder_name(&input.label)) } else { target.clone() };
                sandbox.add_tree(&input.dir, &target)?;
            }
        }
        if !params.files.is_empty() {
            sandbox.add_files(context)?;
        }
        sandbox.add_folder(Path::new("out"))?;
        for name in &params.outputs {
            // The engine has made them, and takes them from there.
            sandbox.placed.insert(Path::new("out").join(name), Placed::Folder);
        }
        if !params.params.is_empty() {
            let values = serde_json::to_vec_pretty(&params.params)
                .map_err(|error| StageError::Internal(format!("parameters are not JSON: {error}")))?;
            let path = work.join(PARAMS);
            fs::write(&path, values).map_err(StageError::io("write", &path))?;
            sandbox.seal(Path::new(PARAMS), read_only)?;
        }
        sandbox.remove_left_over(Path::new(""))?;
        Ok(sandbox)
    }

    /// Removes the folders of earlier stages that this one does not have.
    fn remove_left_over(&self, path: &Path) -> Result<(), StageError> {
        let folder = self.work.join(path);
        for entry in fs::read_dir(&folder).map_err(StageError::io("list", &folder))? {
            let entry = entry.map_err(StageError::io("list", &folder))?;
            let path = path.join(entry.file_name());
            match self.placed.get(&path) {
                None => fs::remove_dir_all(entry.path()).map_err(StageError::io("remove", &entry.path()))?,
                // The engine keeps no deeper ones.
                Some(Placed::Folder) if path.parent() == Some(Path::new("")) => {
                    self.remove_left_over(&path)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn work(&self) -> &Path {
        self.work
    }

    /// Where the program may write what nobody needs.
    pub(super) fn scratch(&self) -> &Path {
        self.scratch
    }

    /// A folder with those that it lies in.
    fn add_folder(&mut self, path: &Path) -> Result<(), StageError> {
        if path.as_os_str().is_empty() || self.placed.contains_key(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.add_folder(parent)?;
        }
        let folder = self.work().join(path);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => result.map_err(StageError::io("create", &folder))?,
        }
        self.placed.insert(path.to_owned(), Placed::Folder);
        Ok(())
    }

    /// An input, which lies read-only in the cache.
    fn add_tree(&mut self, from: &Path, path: &Path) -> Result<(), StageError> {
        self.add_folder(path)?;
        for entry in fs::read_dir(from).map_err(StageError::io("list", from))? {
            let entry = entry.map_err(StageError::io("list", from))?;
            let (source, path) = (entry.path(), path.join(entry.file_name()));
            let metadata = entry.metadata().map_err(StageError::io("look at", &source))?;
            if metadata.is_dir() {
                self.add_tree(&source, &path)?;
            } else {
                self.share(&source, &path)?;
            }
        }
        Ok(())
    }

    fn add_files(&mut self, context: &StageContext) -> Result<(), StageError> {
        let external = context.external(FILES)?;
        for declared in self.params.files.iter().map(|path| plain(path)) {
            if !external.files.iter().any(|file| Path::new(&file.path).starts_with(&declared)) {
                let shown = declared.display();
                let folder = external.root.display();
                let pattern = if shown.to_string().contains(['*', '?', '[']) {
                    "; patterns are not taken, name the folder"
                } else {
                    ""
                };
                return Err(StageError::Data(format!(
                    "`{shown}`, declared under `files`, is not there or an empty folder, in `{folder}`{pattern}"
                )));
            }
        }
        for file in &external.files {
            let path = Path::new(&file.path);
            if self.placed.contains_key(path) {
                // Declared by itself and with its folder.
                continue;
            }
            if let Some(parent) = path.parent() {
                self.add_folder(parent)?;
            }
            // The engine sees afterwards whether this is still the file that was hashed.
            // Its content is in the key and its mode is not: all are executable, as scripts must be.
            self.copy(&external.root.join(path), path, |_| 0o555)?;
        }
        Ok(())
    }

    /// `mode` is that of the copy, from that of the source.
    fn copy(&mut self, source: &Path, path: &Path, mode: impl Fn(u32) -> u32) -> Result<(), StageError> {
        fs::copy(source, self.work().join(path)).map_err(StageError::io("copy", source))?;
        self.seal(path, mode)
    }

    /// Gives a fresh file its mode and remembers its stat.
    fn seal(&mut self, path: &Path, mode: impl Fn(u32) -> u32) -> Result<(), StageError> {
        let target = self.work().join(path);
        let stat = FileStat::following(&target).map_err(StageError::io("look at", &target))?;
        let mode = mode(stat.mode & 0o777);
        if stat.mode & 0o777 == mode {
            self.placed.insert(path.to_owned(), Placed::Copy(stat));
            return Ok(());
        }
        let permissions = std::fs::Permissions::from_mode(mode);
        fs::set_permissions(&target, permissions).map_err(StageError::io("make read-only", &target))?;
        let stat = FileStat::following(&target).map_err(StageError::io("look at", &target))?;
        self.placed.insert(path.to_owned(), Placed::Copy(stat));
        Ok(())
    }

    /// Gives a read-only file of the cache another name. Who may write to it nevertheless breaks its seal: the program
    /// is refused, and the file made again.
    fn share(&mut self, source: &Path, path: &Path) -> Result<(), StageError> {
        let target = self.work().join(path);
        // Refused across file systems, for files of another user, and for one that has all the names it may have.
        if fs::hard_link(source, &target).is_err() {
            return self.copy(source, path, read_only);
        }
        let stat = FileStat::following(&target).map_err(StageError::io("look at", &target))?;
        self.placed.insert(path.to_owned(), Placed::Shared(stat));
        Ok(())
    }

    /// Whether the program kept to what it declared; tells all that it did not.
    pub(super) fn check(&self) -> Result<(), StageError> {
        let mut findings = Findings::default();
        let mut left: BTreeMap<&Path, Placed> =
            self.placed.iter().map(|(path, placed)| (path.as_path(), *placed)).collect();
        self.look_around(Path::new(""), &mut left, &mut findings)?;
        self.look_beside(&mut findings)?;
        let deleted: Vec<&Path> = left.into_keys().filter(|path| !path.starts_with("out")).collect();
        // Of a deleted folder, the folder alone.
        let top = |path: &Path| !path.ancestors().skip(1).any(|parent| deleted.contains(&parent));
        let deleted: Vec<String> = deleted.iter().filter(|path| top(path)).map(|path| shown(path)).collect();
        let (mut empty, mut replaced) = (Vec::new(), Vec::new());
        for name in &self.params.outputs {
            let folder = self.work().join("out").join(name);
            match fs::symlink_metadata(&folder) {
                Ok(found) if !found.is_dir() => replaced.push(format!("out/{name}")),
                _ if !has_entries(&folder) => empty.push(format!("out/{name}/")),
                _ => {}
            }
        }
        let told = [
            (
                "wrote outside of its outputs",
                findings.strays,
                "write below a declared `out/NAME/`, or to `$TMPDIR`",
            ),
            ("changed the read-only", findings.changed, "copy it to `$TMPDIR` first"),
            ("deleted the read-only", deleted, "copy it to `$TMPDIR` first"),
            ("wrote nothing into its output", empty, "or remove it from `outputs`"),
            ("made no folder of its output", replaced, "an output is a folder: write below it"),
        ];
        let told: Vec<String> = told
            .iter()
            .filter(|(_, paths, _)| !paths.is_empty())
            .map(|(what, paths, help)| format!("{what} {} ({help})", list(paths)))
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        Err(StageError::Data(format!("the program ended well but {}", told.join("\n    and "))))
    }

    /// Compares a folder with what was laid out, and takes that out of `left`.
    fn look_around(
        &self,
        path: &Path,
        left: &mut BTreeMap<&Path, Placed>,
        findings: &mut Findings,
    ) -> Result<(), StageError> {
        let folder = self.work().join(path);
        for entry in fs::read_dir(&folder).map_err(StageError::io("list", &folder))? {
            let entry = entry.map_err(StageError::io("list", &folder))?;
            let path = path.join(entry.file_name());
            let kind = entry.file_type().map_err(StageError::io("look at", &entry.path()))?;
            match left.remove(path.as_path()) {
                Some(Placed::Folder) if kind.is_dir() => {
                    if !self.is_output(&path) {
                        self.look_around(&path, left, findings)?;
                    }
                }
                Some(Placed::Copy(before)) if kind.is_file() => {
                    if FileStat::following(&entry.path()).ok() != Some(before) {
                        findings.changed.push(shown(&path));
                    }
                }
                Some(Placed::Shared(before)) if kind.is_file() => {
                    let now = FileStat::following(&entry.path()).ok();
                    if !now.is_some_and(|now| now.is_still(&before)) {
                        findings.changed.push(shown(&path));
                    }
                }
                Some(_) if self.is_output(&path) => {}
                Some(_) => findings.changed.push(shown(&path)),
                None if kind.is_dir() => outputs::files_below(&entry.path(), &path, &mut findings.strays)?,
                None => findings.strays.push(shown(&path)),
            }
        }
        findings.strays.sort();
        findings.changed.sort();
        Ok(())
    }

    /// What lies beside the working folder and is not of the engine.
    fn look_beside(&self, findings: &mut Findings) -> Result<(), StageError> {
        let Some(folder) = self.work.parent() else { return Ok(()) };
        for entry in fs::read_dir(folder).map_err(StageError::io("list", folder))? {
            let path = entry.map_err(StageError::io("list", folder))?.path();
            if path != *self.work && path != *self.scratch && path.file_name() != Some("items".as_ref()) {
                let name = path.file_name().unwrap_or_default();
                findings.strays.push(shown(&Path::new("..").join(name)));
            }
        }
        findings.strays.sort();
        Ok(())
    }

    fn is_output(&self, path: &Path) -> bool {
        path.strip_prefix("out").is_ok_and(|name| self.params.outputs.iter().any(|output| name == output))
    }

    /// Makes the outputs fit for the cache.
    pub(super) fn settle_outputs(&self) -> Result<(), StageError> {
        let sandbox = self.work.parent().unwrap_or(self.work);
        self.params.outputs.iter().try_for_each(|name| {
            let path = Path::new("out").join(name);
            outputs::settle(&self.work.join(&path), &path, sandbox)
        })
    }
}

/// Whether there is a folder with something in it.
/// The name of a stage as that of one folder.
fn folder_name(label: &str) -> String {
    label.replace('%', "%25").replace('/', "%2F")
}

fn read_only(mode: u32) -> u32 {
    mode & 0o555
}

fn has_entries(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir())
        && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
