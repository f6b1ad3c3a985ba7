//! How long one try of a stage may take.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A limit of time that runs from when the work of a try begins: to wait for another process is no work.
#[derive(Debug)]
pub struct Deadline {
    pub limit: Duration,
    began: OnceLock<Instant>,
}

impl Deadline {
    pub fn new(limit: Duration) -> Self {
        Self { limit, began: OnceLock::new() }
    }

    /// The work begins. A second call has no effect.
    pub fn start(&self) {
        self.began.get_or_init(Instant::now);
    }

    pub fn passed(&self) -> bool {
        self.passed_by(Duration::ZERO)
    }

    /// Whether it passed at least this long ago.
    pub fn passed_by(&self, time: Duration) -> bool {
        self.began.get().is_some_and(|began| began.elapsed() >= self.limit.saturating_add(time))
    }
}
