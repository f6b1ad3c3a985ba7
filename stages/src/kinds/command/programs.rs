//! Finds programs as a shell would, by absolute paths only.

use rustix::fs::{Access, access};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The folders of a `PATH`, relative ones made absolute: a program runs in another working folder than `pipe`.
#[derive(Debug, Clone)]
pub(super) struct SearchPath(Arc<Searched>);

#[derive(Debug)]
struct Searched {
    folders: Vec<PathBuf>,
    /// What was asked before: thousands of stages run the same few programs.
    found: Mutex<HashMap<String, Found>>,
}

#[derive(Debug, Clone)]
struct Found {
    program: Option<PathBuf>,
    /// Where nothing is, and it would be found before, or at all.
    earlier: Arc<[PathBuf]>,
}

/// The `PATH` that this process was started with.
static INHERITED: LazyLock<SearchPath> =
    LazyLock::new(|| SearchPath::of(&std::env::var_os("PATH").unwrap_or_default()));

impl SearchPath {
    /// The given `PATH`, or else that of this process.
    pub(super) fn new(fixed: Option<&str>) -> Self {
        fixed.map_or_else(|| INHERITED.clone(), |path| Self::of(OsStr::new(path)))
    }

    fn of(path: &OsStr) -> Self {
        let folders = std::env::split_paths(path).filter_map(|folder| std::path::absolute(folder).ok());
        Self(Arc::new(Searched { folders: folders.collect(), found: Mutex::default() }))
    }

    /// The file of a program, given by name or by absolute path.
    pub(super) fn find(&self, program: &str) -> Option<PathBuf> {
        self.look_for(program).program
    }

    /// Where nothing is and a program would be found before the place where it is, or anywhere if it is not there.
    pub(super) fn earlier(&self, program: &str) -> Arc<[PathBuf]> {
        self.look_for(program).earlier
    }

    fn look_for(&self, program: &str) -> Found {
        let mut known = self.0.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(program) {
            return found.clone();
        }
        let mut earlier = Vec::new();
        let found = if program.contains('/') {
            Some(PathBuf::from(program)).filter(|path| is_program(path))
        } else {
            self.0.folders.iter().map(|folder| folder.join(program)).find(|path| {
                if !path.exists() {
                    earlier.push(path.clone());
                }
                is_program(path)
            })
        };
        let found = Found { program: found, earlier: earlier.into() };
        known.insert(program.to_owned(), found.clone());
        found
    }

    /// As the value of `PATH`.
    pub(super) fn value(&self) -> OsString {
        // Every folder came out of such a list.
        std::env::join_paths(&self.0.folders).unwrap_or_default()
    }

    pub(super) fn help(&self) -> String {
        let folders: Vec<_> = self.0.folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("install it, or add its folder to `PATH`, which is {}", folders.join(":"))
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
