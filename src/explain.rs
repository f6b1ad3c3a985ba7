//! Reasons as sentences: what the difference of two manifests says, with the names of the files that differ.

use pipe_cache::{ChangeKind, Digest, DirtyReason, Store, diff_listing};

/// Files named for one reason; more are counted.
const FILES_NAMED: usize = 3;

/// Each reason in words. Where files differ they are named, as far as both listings are still in the cache.
pub fn describe(reasons: &[DirtyReason], store: &Store) -> Vec<String> {
    reasons
        .iter()
        .map(|reason| {
            let files = match reason {
                DirtyReason::ExternalChanged { old, new, .. }
                | DirtyReason::InputChanged { old, new, .. } => changed_files(old, new, store),
                _ => None,
            };
            files.map_or_else(|| reason.to_string(), |files| format!("{reason}: {files}"))
        })
        .collect()
}

fn changed_files(old: &Digest, new: &Digest, store: &Store) -> Option<String> {
    let changes = diff_listing(&store.tree_entries(old).ok()?, &store.tree_entries(new).ok()?);
    let words = |kind| match kind {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    };
    let mut named: Vec<_> = changes
        .iter()
        .take(FILES_NAMED)
        .map(|change| format!("{} {}", change.path, words(change.kind)))
        .collect();
    if changes.len() > FILES_NAMED {
        named.push(format!("and {} more", changes.len() - FILES_NAMED));
    }
    (!named.is_empty()).then(|| named.join(", "))
}
