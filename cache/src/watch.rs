//! What must be as it was for the last run to be still true, one stat each.

use crate::stat::FileStat;
use crate::stat_cache::HashedFile;
use rustix::fs::AtFlags;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::os::fd::BorrowedFd;

/// A path and what a stat of it must give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched<'a> {
    /// Absolute, or relative to a folder that its holder knows.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// What must be there.
    pub expected: Expected,
}

/// What a stat must give. The same stat proves the same content, or for a folder the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expected {
    /// Nothing is there.
    Absent,
    /// The path leads to this file or folder.
    Leads(FileStat),
    /// This very file is there, and no link to it.
    Is(FileStat),
    /// Written so shortly before it was read that no stat proves anything.
    Unsettled,
}

impl Watched<'_> {
    /// The same, with the path of this one.
    pub fn borrowed(&self) -> Watched<'_> {
        Watched { path: Cow::Borrowed(&self.path), expected: self.expected }
    }

    /// The same, with a path of its own.
    pub fn into_owned(self) -> Watched<'static> {
        Watched { path: self.path.into_owned().into(), expected: self.expected }
    }

    /// Whether it is as it must be, seen from the folder that its path is relative to.
    pub fn holds(&self, from: BorrowedFd<'_>) -> bool {
        let stat = |flags| FileStat::at(from, &self.path, flags);
        match self.expected {
            Expected::Absent => stat(AtFlags::SYMLINK_NOFOLLOW).is_err(),
            Expected::Leads(expected) => stat(AtFlags::empty()).is_ok_and(|found| found == expected),
            Expected::Is(expected) => stat(AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| found == expected),
            Expected::Unsettled => false,
        }
    }
}

impl Expected {
    /// What is expected of a file whose stat `hashed` was taken when its content was read.
    pub fn of(hashed: &HashedFile) -> Self {
        Self::leads(hashed.stat, hashed.settled)
    }

    pub(crate) fn leads(stat: FileStat, settled: bool) -> Self {
        if settled { Self::Leads(stat) } else { Self::Unsettled }
    }
}
