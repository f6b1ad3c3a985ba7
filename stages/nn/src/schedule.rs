//! The learning rate as a function of the step. Pure: nothing to save, nothing to resume.

use serde::{Deserialize, Serialize};

/// How the learning rate falls over a training.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate throughout.
    Constant,
    /// `rate · (1 - step/steps)^power`, by step; nnU-Net uses power 0.9, by epoch.
    Poly { power: f64 },
}

impl Schedule {
    /// The rate of step `step` of `steps`, counted from 0.
    pub fn rate(self, base: f64, step: usize, steps: usize) -> f64 {
        match self {
            Self::Constant => base,
            Self::Poly { power } => base * (1.0 - step as f64 / steps.max(1) as f64).max(0.0).powf(power),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poly_falls_from_the_base_rate_towards_zero() {
        let poly = Schedule::Poly { power: 0.9 };
        assert_eq!(poly.rate(0.01, 0, 100), 0.01);
        // 0.5^0.9 = 0.535886731268...
        assert!((poly.rate(0.01, 50, 100) - 0.005_358_867_312_68).abs() < 1e-14);
        assert_eq!(poly.rate(0.01, 100, 100), 0.0);
        assert_eq!(Schedule::Constant.rate(0.01, 99, 100), 0.01);
    }
}
