//! What running stages share, and what they took of it.

use crate::capacity::Capacity;
use pipe_stages::artifact::Resources;

/// What is free.
#[derive(Debug, Clone)]
pub struct Pool {
    capacity: Capacity,
    free: Capacity,
}

/// What a running stage was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub cpu: usize,
    pub memory_bytes: u64,
    /// Names of GPUs, as CUDA knows them.
    pub gpus: Vec<String>,
}

/// Which resources a stage waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scarce {
    cpu: bool,
    memory: bool,
    gpu: bool,
}

impl Scarce {
    /// Whether a stage takes of them.
    pub fn used_by(self, wanted: Resources) -> bool {
        self.cpu || self.memory && wanted.memory_bytes > 0 || self.gpu && wanted.gpu > 0
    }
}

impl Pool {
    pub fn new(capacity: Capacity) -> Self {
        Self { free: capacity.clone(), capacity }
    }

    /// No stage fits, whatever it needs.
    pub fn is_full(&self) -> bool {
        self.free.cpu == 0
    }

    /// Without what there is not at all: a request above the machine is granted all of it.
    fn clip(&self, wanted: Resources) -> Resources {
        Resources {
            cpu: wanted.cpu.clamp(1, self.capacity.cpu),
            cpu_max: wanted.cpu_max,
            memory_bytes: wanted.memory_bytes.min(self.capacity.memory_bytes),
            gpu: wanted.gpu.min(self.capacity.gpus.len()),
        }
    }

    /// What there is too little of for the stage to start now.
    pub fn lacks(&self, wanted: Resources) -> Scarce {
        let wanted = self.clip(wanted);
        Scarce {
            cpu: wanted.cpu > self.free.cpu,
            memory: wanted.memory_bytes > self.free.memory_bytes,
            gpu: wanted.gpu > self.free.gpus.len(),
        }
    }

    /// Takes what a stage needs, clipped to what there is at all; with `rivals` other stages waiting, a stage that
    /// can use more threads gets its share. `None` if it does not fit now.
    pub fn take(&mut self, wanted: Resources, rivals: usize) -> Option<Taken> {
        if self.lacks(wanted) != Scarce::default() {
            return None;
        }
        let Resources { cpu, cpu_max, memory_bytes, gpu } = self.clip(wanted);
        let cpu = (self.free.cpu / (rivals + 1)).clamp(cpu, cpu_max.max(cpu));
        self.free.cpu -= cpu;
        self.free.memory_bytes -= memory_bytes;
        let gpus = self.free.gpus.drain(..gpu).collect();
        Some(Taken { cpu, memory_bytes, gpus })
    }

    pub fn give_back(&mut self, taken: Taken) {
        self.free.cpu += taken.cpu;
        self.free.memory_bytes += taken.memory_bytes;
        self.free.gpus.extend(taken.gpus);
    }

    /// What of a request the machine does not have, with both numbers.
    pub fn beyond(&self, wanted: Resources) -> Vec<String> {
        let mut beyond = Vec::new();
        let granted = self.clip(wanted);
        if wanted.cpu > granted.cpu {
            beyond.push(format!("{} threads, there are {}", wanted.cpu, granted.cpu));
        }
        if wanted.memory_bytes > granted.memory_bytes {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            let (wanted, granted) = (gib(wanted.memory_bytes), gib(granted.memory_bytes));
            beyond.push(format!("{wanted:.1} GiB of memory, there are {granted:.1}"));
        }
        if wanted.gpu > granted.gpu {
            beyond.push(format!("{} GPUs, there are {}", wanted.gpu, granted.gpu));
        }
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cpu: usize, memory_bytes: u64, gpus: &[&str]) -> Pool {
        let gpus = gpus.iter().map(|&name| name.to_owned()).collect();
        Pool::new(Capacity { cpu, memory_bytes, gpus })
    }

    #[test]
    fn requests_above_the_machine_are_clipped_and_threads_are_shared() {
        let mut pool = pool(4, 100, &[]);
        let large = Resources { cpu: 99, cpu_max: 99, memory_bytes: 1_000, gpu: 1 };
        let taken = pool.take(large, 0).unwrap();
        assert_eq!(taken, Taken { cpu: 4, memory_bytes: 100, gpus: Vec::new() });
        assert_eq!(pool.take(Resources::SERIAL, 0), None);
        pool.give_back(taken);
        assert_eq!(pool.take(Resources::PARALLEL, 1).unwrap().cpu, 2);
        assert_eq!(pool.take(Resources::SERIAL, 0).unwrap().cpu, 1);
        assert_eq!(pool.take(Resources::PARALLEL, 0).unwrap().cpu, 1);
    }

    #[test]
    fn what_a_request_has_beyond_the_machine_is_told() {
        let large = Resources { cpu: 9, cpu_max: 9, memory_bytes: 3 << 30, gpu: 2 };
        let told = ["9 threads, there are 4", "3.0 GiB of memory, there are 1.5", "2 GPUs, there are 1"];
        assert_eq!(pool(4, 3 << 29, &["0"]).beyond(large), told);
        assert_eq!(pool(9, 3 << 30, &["0", "1"]).beyond(large), [] as [&str; 0]);
    }

    #[test]
    fn no_two_running_stages_have_the_same_gpu() {
        let one = Resources { gpu: 1, ..Resources::SERIAL };
        let mut pool = pool(8, 0, &["0", "GPU-b"]);
        let (first, second) = (pool.take(one, 0).unwrap(), pool.take(one, 0).unwrap());
        assert_eq!((&*first.gpus, &*second.gpus), (&["0".to_owned()][..], &["GPU-b".to_owned()][..]));
        assert_eq!(pool.take(one, 0), None);
        pool.give_back(second);
        assert_eq!(pool.take(one, 0).unwrap().gpus, ["GPU-b"]);
    }
}
