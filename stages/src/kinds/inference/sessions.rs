//! Sessions of the members of a predictor: loaded when first needed, lent to one image at a time, kept for the next.

use crate::artifacts::Predictor;
use crate::error::StageError;
use pipe_onnx::{ModelInterface, Provider, Session};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tiles of one image that run at the same time on the CPU, each with a copy of the weights; beyond a few, memory is worth
/// more.
const TILES_AT_ONCE: usize = 8;

pub(super) struct Sessions<'a> {
    predictor: &'a Predictor,
    provider: Provider,
    /// That one image may take.
    threads: usize,
    interfaces: Mutex<BTreeMap<usize, ModelInterface>>,
    /// Those that nobody uses now, by member.
    idle: Mutex<BTreeMap<usize, Vec<Session>>>,
    /// A graphics card takes one image after the other.
    card: Mutex<()>,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(predictor: &'a Predictor, provider: Provider, threads: NonZeroUsize) -> Self {
        Self {
            predictor,
            provider,
            threads: threads.get(),
            interfaces: Mutex::default(),
            idle: Mutex::default(),
            card: Mutex::default(),
        }
    }

    /// Waits until this image may use the device.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        (self.provider != Provider::Cpu).then(|| lock(&self.card))
    }

    /// What a member takes and gives.
    pub(super) fn interface(&self, member: usize) -> Result<ModelInterface, StageError> {
        if let Some(known) = lock(&self.interfaces).get(&member) {
            return Ok(known.clone());
        }
        let session = self.load(member)?;
        let interface = session.interface().clone();
        lock(&self.interfaces).insert(member, interface.clone());
        self.give_back(member, vec![session]);
        Ok(interface)
    }

    /// Sessions of a member for an image that takes `runs` runs of it.
    pub(super) fn borrow(&self, member: usize, runs: usize) -> Result<Vec<Session>, StageError> {
        let most = if self.provider == Provider::Cpu { TILES_AT_ONCE } else { 1 };
        let count = self.threads.min(runs).clamp(1, most);
        let mut sessions = {
            let mut idle = lock(&self.idle);
            let idle = idle.entry(member).or_default();
            idle.split_off(idle.len().saturating_sub(count))
        };
        while sessions.len() < count {
            sessions.push(self.load(member)?);
        }
        Ok(sessions)
    }

    pub(super) fn give_back(&self, member: usize, sessions: Vec<Session>) {
        lock(&self.idle).entry(member).or_default().extend(sessions);
    }

    /// One thread a session: ONNX Runtime adds up in another order with several, and the bits must not depend on the
    /// machine. Threads work on tiles and cases side by side instead.
    fn load(&self, member: usize) -> Result<Session, StageError> {
        let member = &self.predictor.members[member];
        Session::from_bytes_on(&member.read()?, NonZeroUsize::MIN, self.provider)
            .map_err(StageError::inner(format!("loading `{}`", member.card.name)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sessions are whole or not there: a panic elsewhere breaks none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
