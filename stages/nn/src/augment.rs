//! Random changes to a training sample, drawn from a counter-based stream.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Which random changes training samples get. Each is drawn anew for every sample and epoch.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Mirrors along z, y, x with probability 1/2 each. In 2D, z has no effect.
    pub flips: [bool; 3],
    /// Changes gain (0.85 to 1.15), offset (±0.15) and gamma-like curvature of the intensities, and adds noise of
    /// deviation 0 to 0.1, in units of the z-scored image.
    pub intensity: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { flips: [true; 3], intensity: true }
    }
}

impl Augmentation {
    /// None at all.
    pub fn none() -> Self {
        Self { flips: [false; 3], intensity: false }
    }

    /// Draws which axes to mirror.
    pub(crate) fn draw_flips(self, rng: &mut Rng) -> [bool; 3] {
        self.flips.map(|allowed| {
            let mirrored = rng.next_u64() >> 63 == 1;
            allowed && mirrored
        })
    }

    /// Changes the intensities of one sample in place; one change for all channels.
    pub(crate) fn change_intensity(self, rng: &mut Rng, values: &mut [f32]) {
        if !self.intensity {
            return;
        }
        let gain = rng.range(0.85, 1.15);
        let offset = rng.range(-0.15, 0.15);
        let curvature = rng.range(-0.06, 0.06);
        let noise = rng.range(0.0, 0.1);
        for value in values {
            let v = *value * gain + offset;
            // Bends dark and bright ends against the middle, bounded for outliers.
            let bent = v + curvature * v.clamp(-3.0, 3.0).powi(2);
            *value = bent + noise * light_normal(rng.next_u64());
        }
    }
}

/// Nearly standard normal: the sum of four 16-bit uniforms, scaled to variance 1 (Irwin-Hall). Cheap, and its bounded
/// tails do no harm to image noise.
fn light_normal(bits: u64) -> f32 {
    let sum: u32 = (0..4).map(|k| (bits >> (16 * k)) as u32 & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}
