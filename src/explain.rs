//! Reasons as sentences: what the difference of two manifests says, with the stages that inputs come from and the names
//! of the files that differ.

use pipe_cache::{ChangeKind, Digest, DirtyReason, Store, diff_listing};
use std::collections::BTreeMap;

/// Files named for one reason; more are counted.
const FILES_NAMED: usize = 3;

/// Each reason in words. `sources` tells which stage feeds an input port. Where files differ they are named, as far as
/// both listings are still in the cache; else the digests are told apart.
pub fn describe(reasons: &[DirtyReason], sources: &BTreeMap<String, String>, store: &Store) -> Vec<String> {
    reasons.iter().map(|reason| sentence(&with_source(reason, sources), store)).collect()
}

fn sentence(reason: &DirtyReason, store: &Store) -> String {
    match reason {
        DirtyReason::InputChanged { port, label, old, new } => {
            let Some(files) = changed_files(old, new, store) else { return reason.to_string() };
            let from = label.as_ref().map(|stage| format!(" from stage `{stage}`")).unwrap_or_default();
            format!("input `{port}`{from} changed: {files}")
        }
        DirtyReason::ExternalChanged { port, old, new } => match changed_files(old, new, store) {
            Some(files) => format!("external files `{port}` changed: {files}"),
            None => reason.to_string(),
        },
        _ => reason.to_string(),
    }
}

/// The reason with the source of its input, where its port has one source and so no label.
fn with_source(reason: &DirtyReason, sources: &BTreeMap<String, String>) -> DirtyReason {
    let mut reason = reason.clone();
    if let DirtyReason::InputChanged { port, label, .. }
    | DirtyReason::InputAdded { port, label, .. }
    | DirtyReason::InputRemoved { port, label, .. } = &mut reason
        && label.is_none()
    {
        *label = sources.get(port).cloned();
    }
    reason
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
        .map(|change| format!("`{}` {}", change.path, words(change.kind)))
        .collect();
    if changes.len() > FILES_NAMED {
        named.push(format!("and {} more", changes.len() - FILES_NAMED));
    }
    (!named.is_empty()).then(|| named.join(", "))
}
