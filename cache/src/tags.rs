//! Names that people give to runs: one small file a name, which holds the id of the run.
//!
//! Not a field of the run record: a run that is still going writes its record again and would lose the tag.

use crate::error::{CacheError, Doing};
use crate::files;
use crate::trace::{RunHistory, RunId};
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// Longest name of a tag.
const MAX_SIZE: usize = 64;

/// Refuses what could be taken for a path, an option, the id of a run or `latest`.
pub fn check_tag(name: &str) -> Result<(), CacheError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if name.len() <= MAX_SIZE && begins_well && name.bytes().all(plain) && name != "latest" {
        return Ok(());
    }
    Err(CacheError::malformed("a tag", format!("{name:?}")))
}

impl RunHistory {
    /// Gives a run a name. A name that another run has is left with it and that run is returned.
    pub fn tag(&self, name: &str, run: &RunId) -> Result<Option<RunId>, CacheError> {
        const ACTION: &str = "tag a run";
        check_tag(name)?;
        if let Some(owner) = self.tags()?.remove(name) {
            return Ok((owner != *run).then_some(owner));
        }
        files::replace(&self.layout, &self.layout.tags().join(name), format!("{run}\n").as_bytes())
            .doing(ACTION)?;
        Ok(None)
    }

    /// Takes a name away; `false` if there was none.
    pub fn untag(&self, name: &str) -> Result<bool, CacheError> {
        check_tag(name)?;
        match fs_err::remove_file(self.layout.tags().join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            result => result.doing("remove a tag").map(|()| true),
        }
    }

    /// The names of one run. A damaged tag is passed over: [`RunHistory::tags`] tells of it.
    pub(crate) fn tags_of(&self, run: &RunId) -> Vec<String> {
        let entries = std::fs::read_dir(self.layout.tags()).into_iter().flatten().flatten();
        let is_tag = |name: &String| {
            let text = || std::fs::read_to_string(self.layout.tags().join(name)).ok();
            check_tag(name).is_ok() && text().and_then(|text| text.trim().parse().ok()).as_ref() == Some(run)
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_tag).collect();
        names.sort_unstable();
        names
    }

    /// All names, each with its run. Other files in the folder are passed over.
    pub fn tags(&self) -> Result<BTreeMap<String, RunId>, CacheError> {
        const ACTION: &str = "list tags";
        let entries = match fs_err::read_dir(self.layout.tags()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            result => result.doing(ACTION)?,
        };
        let mut tags = BTreeMap::new();
        for entry in entries {
            let entry = entry.doing(ACTION)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if check_tag(&name).is_err() {
                continue;
            }
            let text = fs_err::read_to_string(entry.path()).doing(ACTION)?;
            let run = text.trim().parse().map_err(|_| {
                let help = format!("`{name}` holds {text:?}; `pipe tag --delete {name}` removes it");
                CacheError::malformed("a tag", help)
            })?;
            tags.insert(name, run);
        }
        Ok(tags)
    }
}
