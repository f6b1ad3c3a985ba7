//! Random numbers and smooth random fields, the same on every machine.

/// A smooth field from -1 to 1: random values on a coarse lattice, trilinear between them.
pub(super) struct Lattice {
    values: Vec<f64>,
    nodes: [usize; 3],
    step: f64,
}

impl Lattice {
    pub(super) fn draw(shape: [usize; 3], step: usize, own: &mut Draw) -> Self {
        let nodes = shape.map(|size| size / step + 2);
        let values = (0..nodes.iter().product()).map(|_| own.signed()).collect();
        Self { values, nodes, step: step as f64 }
    }

    pub(super) fn at(&self, voxel: [f64; 3]) -> f64 {
        let place = voxel.map(|position| position / self.step);
        let base = place.map(|position| position as usize);
        let mut sum = 0.0;
        for corner in 0..8 {
            let upper = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
            let weight = |axis: usize| {
                let fraction = place[axis] - base[axis] as f64;
                if upper[axis] == 1 { fraction } else { 1.0 - fraction }
            };
            let node = |axis: usize| base[axis] + upper[axis];
            let index = (node(0) * self.nodes[1] + node(1)) * self.nodes[2] + node(2);
            sum += self.values[index] * weight(0) * weight(1) * weight(2);
        }
        sum
    }
}

/// Random numbers: the blake3 stream of a seed and a name.
pub(super) struct Draw {
    stream: blake3::OutputReader,
    block: [u8; 64],
    used: usize,
}

impl Draw {
    pub(super) fn new(seed: u64, what: &str, index: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"phantom").update(&seed.to_le_bytes()).update(&(index as u64).to_le_bytes());
        Self { stream: hasher.update(what.as_bytes()).finalize_xof(), block: [0; 64], used: 64 }
    }

    pub(super) fn word(&mut self) -> u32 {
        if self.used == self.block.len() {
            self.stream.fill(&mut self.block);
            self.used = 0;
        }
        let bytes = self.block[self.used..self.used + 4].try_into().expect("blocks hold whole words");
        self.used += 4;
        u32::from_le_bytes(bytes)
    }

    /// From 0 to below 1.
    pub(super) fn uniform(&mut self) -> f64 {
        f64::from(self.word()) / 4_294_967_296.0
    }

    /// From -1 to below 1.
    pub(super) fn signed(&mut self) -> f64 {
        2.0 * self.uniform() - 1.0
    }

    /// A whole number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.uniform() * end as f64) as usize
    }

    /// Nearly normal, mean 0, standard deviation 1: four uniform numbers added, which needs no logarithm.
    pub(super) fn normal(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.signed()).sum();
        sum * (3.0_f64 / 4.0).sqrt()
    }
}
