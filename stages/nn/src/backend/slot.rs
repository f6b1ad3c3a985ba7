//! Where the gradient of one activation gathers during the backward pass.

use std::sync::{Mutex, PoisonError};

/// A gradient in a buffer of the backend, once something reached it.
#[derive(Debug)]
pub(crate) struct Slot<B>(Mutex<Option<B>>);

/// What can be added up in a [`Slot`].
pub(crate) trait Gather {
    fn add_assign(&mut self, more: &Self);
}

impl<B> Default for Slot<B> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<B: Gather> Slot<B> {
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Option<B>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take(&self) -> Option<B> {
        self.with(Option::take)
    }

    /// Adds a contribution; the first one is kept as it is.
    pub(crate) fn add(&self, contribution: B) {
        self.with(|held| match held {
            Some(sum) => sum.add_assign(&contribution),
            None => *held = Some(contribution),
        });
    }
}
