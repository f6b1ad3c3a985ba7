//! What the stages of a plan read from outside of the cache, as it stands, to see when it changes.

use crate::plan::PlannedStage;
use pipe_cache::FileStat;
use pipe_stages::artifact::Absent;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The stat of every file at or below some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, FileStat>);

/// The files and folders that a stage declares, also those that are not there yet.
pub fn paths(planned: &PlannedStage) -> Vec<PathBuf> {
    let externals = planned.ports().externals.iter();
    let paths = externals.flat_map(|external| match external.parts.as_slice() {
        [] => vec![external.path.clone()],
        // What the folder holds besides does not matter once a part is there, but it may be all that is read.
        _ if external.absent == Absent::Whole => vec![external.path.clone()],
        parts => parts.iter().map(|part| external.path.join(part)).collect(),
    });
    paths.collect()
}

impl Snapshot {
    pub fn of(paths: &BTreeSet<PathBuf>) -> Self {
        let mut files = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for path in paths {
            look(path, &mut seen, &mut files);
        }
        Self(files)
    }

    /// This one, but where an earlier one knows a file, as it was then.
    #[must_use]
    pub fn with(mut self, earlier: &Self) -> Self {
        self.0.extend(earlier.0.clone());
        self
    }

    /// What differs from an earlier one, e.g. `data.txt changed`.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let all: BTreeSet<_> = before.0.keys().chain(self.0.keys()).collect();
        let change = |path: &PathBuf| match (before.0.get(path), self.0.get(path)) {
            (None, Some(_)) => Some("added"),
            (Some(_), None) => Some("removed"),
            (before, now) => (before != now).then_some("changed"),
        };
        all.into_iter().filter_map(|path| Some(format!("{} {}", path.display(), change(path)?))).collect()
    }
}

/// Links are followed; a folder that they lead to again is looked at once.
fn look(path: &Path, seen: &mut BTreeSet<(u64, u64)>, files: &mut BTreeMap<PathBuf, FileStat>) {
    // What cannot be looked at is as good as not there: the stage that reads it will say why.
    let Ok(stat) = FileStat::following(path) else { return };
    if stat.is_file() {
        files.insert(path.to_owned(), stat);
    } else if seen.insert((stat.device, stat.inode)) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            look(&entry.path(), seen, files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_that_come_change_and_go_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("data/sub")).unwrap();
        fs::write(at("data/sub/a"), "1").unwrap();
        fs::write(at("data/b"), "1").unwrap();
        // A folder that holds itself ends somewhere.
        std::os::unix::fs::symlink("..", at("data/sub/up")).unwrap();
        let paths = BTreeSet::from([at("data"), at("later")]);
        let before = Snapshot::of(&paths);
        assert_eq!(Snapshot::of(&paths).changes_since(&before), [] as [&str; 0]);
        fs::write(at("data/sub/a"), "22").unwrap();
        fs::remove_file(at("data/b")).unwrap();
        fs::write(at("later"), "").unwrap();
        let told = [("data/b", "removed"), ("data/sub/a", "changed"), ("later", "added")]
            .map(|(name, change)| format!("{} {change}", at(name).display()));
        assert_eq!(Snapshot::of(&paths).changes_since(&before), told);
    }
}
