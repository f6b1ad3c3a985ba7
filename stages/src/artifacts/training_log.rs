//! How a training went, epoch by epoch. Holds no times: the same training writes the same bytes.

use super::table_file::{read_rows, write_rows};
use crate::{artifact::Artifact, error::StageError};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::path::Path;

mod events;

/// The curves of one training.
///
/// On disk: `log.csv` (one row an epoch), `dice.csv` (one row a validated epoch and foreground label), `layers.csv` (one
/// row an epoch, layer and quantity), `pretrained.csv` (one row a parameter or tensor, where start values were given) and a
/// file of events for TensorBoard with the curves. Cells are empty where there is no value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingLog {
    /// Sorted by epoch, without gaps.
    pub rows: Vec<EpochRow>,
    /// Sorted by epoch, then label; empty when nothing was validated.
    pub dice: Vec<LabelDiceRow>,
    /// In the order of the network, epoch by epoch.
    pub layers: Vec<LayerRow>,
    /// Where each start value comes from; empty where all were drawn.
    pub taken: Vec<TakenRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Counted from 1.
    pub epoch: usize,
    /// Training loss, mean over the steps of the epoch.
    pub loss: f64,
    /// Rate of the last step.
    pub learning_rate: f64,
    /// Euclidean norm of the gradient, mean over the steps of the epoch.
    pub gradient_norm: f64,
    /// `None`, like the next, in an epoch that was not validated.
    pub validation_loss: Option<f64>,
    /// Mean over the foreground labels that have one of their mean Dice over validation cases.
    pub validation_dice: Option<f64>,
    /// Share of right answers over the validation cases, for classes of whole images.
    pub validation_accuracy: Option<f64>,
    /// Area under the ROC curve over the validation cases, for classes of whole images.
    pub validation_auc: Option<f64>,
}

/// Values of an activation, or of the gradient of a weight, at the first step of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRow {
    pub epoch: usize,
    pub layer: String,
    /// `activation` or `gradient`.
    pub quantity: pipe_nn::Quantity,
    pub mean: f64,
    pub variance: f64,
    /// Share of values below 1e-6 in magnitude.
    pub zeros: f64,
}

/// A parameter of the network and the tensor that it begins with, or what is left over on either side. Shapes are written
/// as `16x1x3x3`, that of a single number as `scalar`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenRow {
    pub parameter: Option<String>,
    pub shape: Option<String>,
    pub tensor: Option<String>,
    pub tensor_shape: Option<String>,
    /// `taken`, or why not.
    pub fate: String,
}

/// Validation Dice of one label in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelDiceRow {
    pub epoch: usize,
    pub label: u8,
    /// Name of the label.
    pub name: String,
    /// Mean over the validation cases; `None` when the label neither occurs nor is predicted in any of them.
    pub dice: Option<f64>,
}

const LOG: &str = "log.csv";
const DICE: &str = "dice.csv";
const LAYERS: &str = "layers.csv";
const TAKEN: &str = "pretrained.csv";
/// TensorBoard takes any file whose name holds `tfevents`.
const EVENTS: &str = "events.out.tfevents.0.pipe";
const LOG_COLUMNS: [&str; 8] = [
    "epoch",
    "loss",
    "learning_rate",
    "gradient_norm",
    "validation_loss",
    "validation_dice",
    "validation_accuracy",
    "validation_auc",
];
const DICE_COLUMNS: [&str; 4] = ["epoch", "label", "name", "dice"];
const TAKEN_COLUMNS: [&str; 5] = ["parameter", "shape", "tensor", "tensor_shape", "fate"];
const LAYER_COLUMNS: [&str; 6] = ["epoch", "layer", "quantity", "mean", "variance", "zeros"];

impl TrainingLog {
    /// The epoch with the largest validation score (mean Dice, or area under the ROC curve for classes of whole images) and
    /// that score; the first of equals. `None` when nothing was validated.
    pub fn best(&self) -> Option<(&EpochRow, f64)> {
        let score =
            |row: &EpochRow| row.validation_dice.or(row.validation_auc).filter(|score| !score.is_nan());
        let validated = self.rows.iter().filter_map(|row| Some((row, score(row)?)));
        validated.reduce(|best, other| if other.1 > best.1 { other } else { best })
    }
}

impl Artifact for TrainingLog {
    const TYPE: &'static str = "training-log";
    const FORMAT: u32 = 3;

    fn load(dir: &Path) -> Result<Self, StageError> {
        Ok(Self {
            rows: read_rows(&dir.join(LOG))?,
            dice: read_rows(&dir.join(DICE))?,
            layers: read_rows(&dir.join(LAYERS))?,
            taken: if dir.join(TAKEN).exists() { read_rows(&dir.join(TAKEN))? } else { Vec::new() },
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(LOG), &LOG_COLUMNS, &self.rows)?;
        write_rows(&dir.join(DICE), &DICE_COLUMNS, &self.dice)?;
        write_rows(&dir.join(LAYERS), &LAYER_COLUMNS, &self.layers)?;
        if !self.taken.is_empty() {
            write_rows(&dir.join(TAKEN), &TAKEN_COLUMNS, &self.taken)?;
        }
        let path = dir.join(EVENTS);
        fs::write(&path, events::of(self)).map_err(StageError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: usize, validation_dice: Option<f64>) -> EpochRow {
        EpochRow {
            epoch,
            loss: 0.1 + 0.2,
            learning_rate: 1e-3,
            gradient_norm: 2.5,
            validation_loss: None,
            validation_dice,
            validation_accuracy: None,
            validation_auc: None,
        }
    }

    fn dice(epoch: usize, label: u8, name: &str, dice: Option<f64>) -> LabelDiceRow {
        LabelDiceRow { epoch, label, name: name.into(), dice }
    }

    #[test]
    fn a_log_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let log = TrainingLog {
            rows: vec![row(1, None), row(2, Some(1.0 / 3.0))],
            dice: vec![dice(2, 1, "left, \"upper\" lobe", Some(1.0 / 3.0)), dice(2, 2, "<b>", None)],
            layers: vec![LayerRow {
                epoch: 1,
                layer: "encoder.0.norm0".into(),
                quantity: pipe_nn::Quantity::Activation,
                mean: 0.5,
                variance: 1e-9,
                zeros: 0.0,
            }],
            taken: vec![TakenRow {
                parameter: Some("head.bias".into()),
                shape: Some("2".into()),
                tensor: None,
                tensor_shape: None,
                fate: "missing".into(),
            }],
        };
        log.store(dir.path()).expect("a log can be stored");
        assert_eq!(TrainingLog::load(dir.path()).expect("a stored log reads back"), log);
        let text = fs_err::read_to_string(dir.path().join(LOG)).expect("the table is there");
        assert_eq!(
            text,
            "epoch,loss,learning_rate,gradient_norm,validation_loss,validation_dice,validation_accuracy,validation_auc\n\
             1,0.30000000000000004,0.001,2.5,,,,\n2,0.30000000000000004,0.001,2.5,,0.3333333333333333,,\n"
        );
    }

    #[test]
    fn an_empty_log_reads_back() {
        let dir = tempfile::tempdir().expect("temporary folder");
        TrainingLog::default().store(dir.path()).expect("a log can be stored");
        assert_eq!(TrainingLog::load(dir.path()).expect("a stored log reads back"), TrainingLog::default());
    }

    #[track_caller]
    fn best(dice: &[Option<f64>], expected: Option<usize>) {
        let rows = dice.iter().enumerate().map(|(index, dice)| row(index + 1, *dice)).collect();
        let log = TrainingLog { rows, ..TrainingLog::default() };
        assert_eq!(log.best().map(|(row, _)| row.epoch), expected);
    }

    #[test]
    fn the_best_epoch_is_the_first_of_equals() {
        best(&[Some(0.5), Some(0.8), None, Some(0.8), Some(0.7)], Some(2));
        best(&[None, None], None);
        best(&[Some(f64::NAN), Some(0.2), Some(f64::NAN)], Some(2));
        best(&[], None);
    }
}
