//! Random changes to training samples: which there are, how likely and how strong. The changes themselves are in the
//! modules below. Every draw follows from (seed, epoch, place in the epoch) alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::rng::{Rng, Stream};
use crate::words::names_alone;

pub(crate) mod intensity;
pub(crate) mod mix;
pub(crate) mod spatial;

/// Whether training samples are changed at random.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = names_alone)]
pub enum Augment {
    /// Never.
    None(Unchanged),
    /// Anew for every sample and epoch; the defaults suit z-scored magnetic resonance images.
    Random(Box<Random>),
}

/// Parameters of [`Augment::None`]: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Unchanged {}

impl Default for Augment {
    fn default() -> Self {
        Self::Random(Box::default())
    }
}

/// Defines a change with its usual probability and the range that its strength is drawn from.
macro_rules! change {
    ($(#[$doc:meta])* $name:ident, $probability:literal, $range:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// How many of the samples are changed, 0 to 1.
            pub probability: f32,
            /// Least and greatest strength.
            pub range: [f32; 2],
        }

        impl Default for $name {
            fn default() -> Self {
                Self { probability: $probability, range: $range }
            }
        }

        impl $name {
            /// The strength for one sample, if it is changed.
            pub(crate) fn draw(self, rng: &mut Rng) -> Option<f32> {
                let (chosen, strength) = (rng.uniform(), rng.range(self.range[0], self.range[1]));
                (chosen < self.probability).then_some(strength)
            }

            fn check(self, name: &'static str) -> Result<(), NnError> {
                let [low, high] = self.range;
                let refuse = |value: String, rule: &str| {
                    Err(NnError::Config { name, value, rule: rule.to_owned() })
                };
                if !(0.0..=1.0).contains(&self.probability) {
                    return refuse(format!("{} likely", self.probability), "a probability lies in 0..=1");
                }
                let within: std::ops::RangeInclusive<f32> = $rule;
                if low <= high && within.contains(&low) && within.contains(&high) {
                    return Ok(());
                }
                let rule = format!("a range rises and lies in {}..={}", within.start(), within.end());
                refuse(format!("{low} to {high}"), &rule)
            }
        }
    };
}

change!(
    /// Turns a volume about all axes (slices, and volumes with thick slices, in the plane), each by an angle of its own, in
    /// degrees.
    Rotation, 0.2, [-30.0, 30.0], -180.0..=180.0
);
change!(
    /// Enlarges the content by a factor.
    Scale, 0.2, [0.7, 1.4], 0.1..=10.0
);
change!(
    /// Moves the content along each axis, by a share of the patch.
    Translation, 0.0, [-0.1, 0.1], -1.0..=1.0
);
change!(
    /// Bends the content smoothly: the deviation of displacements, in voxels, of points 8 voxels apart.
    Elastic, 0.1, [0.5, 1.5], 0.0..=8.0
);
change!(
    /// Adds normal noise: its deviation, in units of the image.
    Noise, 0.1, [0.0, 0.1], 0.0..=10.0
);
change!(
    /// Blurs by a Gaussian: its deviation, in voxels.
    Blur, 0.2, [0.5, 1.0], 0.0..=10.0
);
change!(
    /// Multiplies all values.
    Brightness, 0.15, [0.75, 1.25], 0.0..=10.0
);
change!(
    /// Multiplies the differences to the mean; the range of values stays.
    Contrast, 0.15, [0.75, 1.25], 0.0..=10.0
);
change!(
    /// Drops voxels along each axis and fills in between again: the share that is left.
    LowResolution, 0.15, [0.5, 1.0], 0.05..=1.0
);
change!(
    /// Raises the values, brought to 0 to 1, to a power; mean and deviation stay.
    Gamma, 0.3, [0.7, 1.5], 0.05..=20.0
);
change!(
    /// Multiplies by a smooth field, as of a receive coil: the largest coefficient of its polynomial.
    BiasField, 0.1, [0.1, 0.3], 0.0..=2.0
);
change!(
    /// Sets a box to 0 (DeVries and Taylor 2017): its share of each axis.
    Cutout, 0.0, [0.1, 0.3], 0.0..=1.0
);
change!(
    /// Adds a share of another sample of the batch, and that share of its loss (Zhang et al. 2018).
    Mixup, 0.0, [0.0, 0.5], 0.0..=1.0
);
change!(
    /// Puts a box of another sample of the batch in place, with its labels (Yun et al. 2019): its share of each axis.
    Cutmix, 0.0, [0.2, 0.5], 0.0..=1.0
);

/// Parameters of [`Augment::Random`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Random {
    /// Mirrors along z, y, x with probability 1/2 each. In 2D, z has no effect.
    pub flips: [bool; 3],
    pub rotation: Rotation,
    pub scale: Scale,
    pub translation: Translation,
    pub elastic: Elastic,
    pub noise: Noise,
    pub blur: Blur,
    pub brightness: Brightness,
    pub contrast: Contrast,
    pub low_resolution: LowResolution,
    pub gamma: Gamma,
    pub bias_field: BiasField,
    pub cutout: Cutout,
    pub mixup: Mixup,
    pub cutmix: Cutmix,
}

impl Default for Random {
    fn default() -> Self {
        Self {
            flips: [true; 3],
            rotation: Rotation::default(),
            scale: Scale::default(),
            translation: Translation::default(),
            elastic: Elastic::default(),
            noise: Noise::default(),
            blur: Blur::default(),
            brightness: Brightness::default(),
            contrast: Contrast::default(),
            low_resolution: LowResolution::default(),
            gamma: Gamma::default(),
            bias_field: BiasField::default(),
            cutout: Cutout::default(),
            mixup: Mixup::default(),
            cutmix: Cutmix::default(),
        }
    }
}

/// What a draw is for: each change has numbers of its own, so that one does not move when another is switched off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Draw {
    Flip = 1,
    Rotation,
    Scale,
    Translation,
    Elastic,
    Noise,
    Blur,
    Brightness,
    Contrast,
    LowResolution,
    Gamma,
    BiasField,
    Cutout,
}

/// The place of a sample: all of its draws follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seed: u64,
    pub(crate) epoch: usize,
    /// In the epoch.
    pub(crate) index: usize,
}

impl Place {
    /// The numbers for one change of this sample.
    pub(crate) fn rng(self, draw: Draw) -> Rng {
        let counters = [((self.epoch as u64) << 32) | self.index as u64, draw as u64];
        Rng::new(self.seed, Stream::Augment, counters)
    }
}

impl Augment {
    /// The changes, if there are any.
    pub(crate) fn random(&self) -> Option<&Random> {
        match self {
            Self::None(Unchanged {}) => None,
            Self::Random(random) => Some(random),
        }
    }

    /// No change at all.
    pub fn none() -> Self {
        Self::None(Unchanged {})
    }

    pub(crate) fn check(&self) -> Result<(), NnError> {
        let Some(random) = self.random() else { return Ok(()) };
        random.rotation.check("augment.rotation")?;
        random.scale.check("augment.scale")?;
        random.translation.check("augment.translation")?;
        random.elastic.check("augment.elastic")?;
        random.noise.check("augment.noise")?;
        random.blur.check("augment.blur")?;
        random.brightness.check("augment.brightness")?;
        random.contrast.check("augment.contrast")?;
        random.low_resolution.check("augment.low_resolution")?;
        random.gamma.check("augment.gamma")?;
        random.bias_field.check("augment.bias_field")?;
        random.cutout.check("augment.cutout")?;
        random.mixup.check("augment.mixup")?;
        random.cutmix.check("augment.cutmix")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Random), expected: &str) {
        let mut random = Random::default();
        change(&mut random);
        let error = Augment::Random(Box::new(random)).check().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_impossible_change_is_refused() {
        Augment::default().check().unwrap();
        refused(
            |random| random.noise.probability = 1.5,
            "augment.noise is 1.5 likely, but a probability lies in 0..=1",
        );
        refused(
            |random| random.scale.range = [1.4, 0.7],
            "augment.scale is 1.4 to 0.7, but a range rises and lies in 0.1..=10",
        );
    }
}
