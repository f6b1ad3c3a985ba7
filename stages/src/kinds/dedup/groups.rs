//! Which things belong together, told pair by pair.

use std::collections::BTreeMap;

/// Disjoint sets.
#[derive(Debug)]
pub(super) struct Groups<T> {
    /// Another member of the group, for all that were joined to one.
    parents: BTreeMap<T, T>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { parents: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Groups<T> {
    /// Puts two things into one group; false when they are already.
    pub(super) fn join(&mut self, one: T, other: T) -> bool {
        let (one, other) = (self.root(one), self.root(other));
        if one == other {
            return false;
        }
        self.parents.insert(one.max(other), one.min(other));
        true
    }

    /// The first member of the group.
    pub(super) fn root(&self, mut of: T) -> T {
        while let Some(parent) = self.parents.get(&of) {
            of = *parent;
        }
        of
    }

    /// Groups of two and more, each sorted.
    pub(super) fn members(&self) -> Vec<Vec<T>> {
        let mut groups: BTreeMap<T, Vec<T>> = BTreeMap::new();
        for &member in self.parents.keys() {
            let root = self.root(member);
            groups.entry(root).or_insert_with(|| vec![root]).push(member);
        }
        groups.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_become_one_group_and_roots_are_the_first() {
        let mut groups = Groups::default();
        assert!(groups.join(7, 3) && groups.join(9, 8) && groups.join(8, 7));
        assert!(!groups.join(3, 9));
        assert!(groups.join(20, 21));
        assert_eq!(groups.members(), [vec![3, 7, 8, 9], vec![20, 21]]);
        assert_eq!((groups.root(9), groups.root(21), groups.root(5)), (3, 20, 5));
    }
}
