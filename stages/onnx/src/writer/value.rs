//! Handles to the values of a graph under construction, and the exact arithmetic of their spatial size.

/// The number of spatial axes of a network; always in the order `(z), y, x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dims {
    /// `y, x`: images, or slices of a volume.
    Two,
    /// `z, y, x`.
    Three,
}

impl Dims {
    /// Returns 2 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// Names of the spatial axes in the graph's input, outermost first.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Two => &["height", "width"],
            Self::Three => &["depth", "height", "width"],
        }
    }
}

/// A tensor inside a [`GraphBuilder`](super::GraphBuilder): the result of a layer, or the network's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub(crate) name: String,
    pub(crate) channels: usize,
    /// One entry a spatial axis; empty once the axes are pooled away.
    pub(crate) scales: Vec<Scale>,
}

impl Value {
    /// Returns the size of axis 1.
    pub fn channels(&self) -> usize {
        self.channels
    }
}

/// Spatial size relative to the network's input: `up / down`, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) up: usize,
    pub(crate) down: usize,
}

impl Scale {
    pub(crate) const ONE: Self = Self { up: 1, down: 1 };

    /// Returns the scale times `up / down`, or `None` when it does not fit a `usize`.
    pub(crate) fn times(self, up: usize, down: usize) -> Option<Self> {
        let (up, down) = (self.up.checked_mul(up)?, self.down.checked_mul(down)?);
        let common = greatest_common_divisor(up, down);
        Some(Self { up: up / common, down: down / common })
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.down == 1 { write!(f, "{}", self.up) } else { write!(f, "{}/{}", self.up, self.down) }
    }
}

/// Returns the least common multiple, or `None` when it does not fit a `usize`.
pub(crate) fn least_common_multiple(a: usize, b: usize) -> Option<usize> {
    (a / greatest_common_divisor(a, b)).checked_mul(b)
}

fn greatest_common_divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
