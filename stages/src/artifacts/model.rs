//! A trained network: weights, and a card that says how to use them.

use crate::artifact::Artifact;
use crate::artifacts::preparation::Preparation;
use crate::artifacts::table_file::{read_json, write_json};
use crate::error::StageError;
use fs_err as fs;
use pipe_nn::{Architecture, Io};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const CARD: &str = "model.json";
const WEIGHTS: &str = "model.safetensors";

/// A trained network: `model.json` and `model.safetensors` (PyTorch names and layouts).
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub card: ModelCard,
    /// The bytes of the safetensors file.
    pub weights: Vec<u8>,
}

/// What must be known to use the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The network to which the weights belong.
    pub architecture: Architecture,
    /// What goes into it and comes out.
    pub io: Io,
    /// Size of the input in training, z, y, x in voxels; z is 1 for a 2D network.
    pub patch: [usize; 3],
    /// How the training volumes were made.
    pub preparation: Preparation,
    /// Label value → name, background (0) included. The network's classes are these, in order.
    pub labels: BTreeMap<u8, String>,
    pub training: TrainingFacts,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFacts {
    pub fold: usize,
    pub training_cases: usize,
    pub validation_cases: usize,
    pub epochs: usize,
    /// The epoch whose weights these are, counted from 1.
    pub epoch: usize,
    /// Mean over foreground labels of the mean Dice over validation cases, in the space of the training volumes.
    /// `null` where there were no validation cases.
    pub validation_dice: Option<f64>,
    /// Area under the ROC curve over the validation cases, for classes of whole images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_auc: Option<f64>,
}

impl Artifact for Model {
    const TYPE: &'static str = "model";
    const FORMAT: u32 = 3;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let weights = dir.join(WEIGHTS);
        Ok(Self {
            card: read_json(&dir.join(CARD))?,
            weights: fs::read(&weights).map_err(StageError::io("read", &weights))?,
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_json(&dir.join(CARD), &self.card)?;
        let weights = dir.join(WEIGHTS);
        fs::write(&weights, &self.weights).map_err(StageError::io("write", &weights))
    }
}
