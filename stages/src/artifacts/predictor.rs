//! Exported networks that vote together: ONNX files, and a card that says how to use them.

use super::Preparation;
use super::model::TrainingFacts;
use super::table_file::{read_json, write_json};
use crate::artifact::Artifact;
use crate::error::StageError;
use fs_err as fs;
use pipe_cache::Digest;
use pipe_nn::Dims;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One or more exported networks whose predictions become one.
///
/// On disk: `predictor.json` and `members/00/model.onnx`, `members/01/model.onnx`, … Holds the paths of the networks,
/// not their bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictor {
    pub task: Task,
    pub combine: Combine,
    /// At least one.
    pub members: Vec<Member>,
}

/// How the predictions of several networks become one. Means and votes are taken on the grid of the networks, before the
/// way back to the source image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// The weighted mean of their class probabilities.
    #[default]
    MeanProbabilities,
    /// The weighted mean of their logits: a network that is sure counts more.
    MeanLogits,
    /// The class that most of them take, by weight; the lowest on a tie.
    Majority,
    /// The most probable class by STAPLE, which weighs each network by how well it agrees with what all say together
    /// (Warfield, Zou & Wells 2004), on the source grid. Weights do not count.
    Staple,
}

/// What goes into a network and what comes out: every member does the same task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Label value → name, background (0) included. Class `i` of a network is the `i`-th of them.
    pub labels: BTreeMap<u8, String>,
    /// Image channels.
    pub channels: usize,
    /// How images are prepared before the networks see them.
    pub preparation: Preparation,
}

/// One network of a predictor.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub card: MemberCard,
    /// Where its ONNX file lies now.
    pub path: PathBuf,
}

/// What must be known of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberCard {
    /// The stage that exported it, for people.
    pub name: String,
    /// Its share in the mean of the probabilities, relative to the other members; above 0.
    pub weight: f64,
    /// Whether it sees slices or volumes.
    pub dims: Dims,
    /// For people, e.g. `U-Net 3d: 4 levels of 16 to 128 features, 1403954 parameters`.
    pub architecture: String,
    /// Largest input, z, y, x in voxels; z is 1 for a 2D network.
    pub patch: [usize; 3],
    /// The fold of the split that it was not trained on; `null` where that is not known, and then it predicts no validation
    /// case.
    pub fold: Option<usize>,
    /// `null` where nothing is known of it: another program made the network.
    pub training: Option<TrainingFacts>,
    /// blake3 of the ONNX file.
    pub digest: Digest,
}

impl Task {
    /// Says where two tasks differ, with both values: "labels are … in A but … in B".
    pub fn difference(&self, own_name: &str, other: &Self, other_name: &str) -> Option<String> {
        let say = |what: &str, own: String, theirs: String| {
            (own != theirs).then(|| format!("{what} {own} in {own_name} but {theirs} in {other_name}"))
        };
        say("labels are", labels_text(&self.labels), labels_text(&other.labels))
            .or_else(|| {
                say("the number of channels is", self.channels.to_string(), other.channels.to_string())
            })
            .or_else(|| self.preparation.difference(own_name, &other.preparation, other_name))
    }
}

/// `0 background, 1 Anterior`, for messages.
pub(crate) fn labels_text(labels: &BTreeMap<u8, String>) -> String {
    labels.iter().map(|(value, name)| format!("{value} {name}")).collect::<Vec<_>>().join(", ")
}

impl Member {
    /// Reads the ONNX file; an error when it is not the file that the card speaks of.
    pub fn read(&self) -> Result<Vec<u8>, StageError> {
        let bytes = fs::read(&self.path).map_err(StageError::io("read", &self.path))?;
        let found = Digest::of_bytes(&bytes);
        if found == self.card.digest {
            return Ok(bytes);
        }
        let (found, expected) = (found.short(), self.card.digest.short());
        Err(StageError::malformed(&self.path)(format!(
            "its content is {found}… but the card says {expected}…: copy or export the model again"
        )))
    }
}

const CARD: &str = "predictor.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    task: Task,
    combine: Combine,
    members: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// For readers without pipe; always the place that follows from the position.
    file: String,
    #[serde(flatten)]
    card: MemberCard,
}

fn member_file(index: usize) -> String {
    format!("members/{index:02}/model.onnx")
}

impl Card {
    /// What makes the card unusable.
    fn problem(&self) -> Option<String> {
        let labels = &self.task.labels;
        if labels.len() < 2 || !labels.contains_key(&0) {
            return Some(format!("labels are {}: 0 and another one are needed", labels_text(labels)));
        }
        if self.members.is_empty() {
            return Some("it has no members".into());
        }
        self.members.iter().enumerate().find_map(|(index, Entry { file, card })| {
            if *file != member_file(index) {
                return Some(format!("member {index} lies in `{file}`, not in `{}`", member_file(index)));
            }
            if !(card.weight.is_finite() && card.weight > 0.0) {
                return Some(format!(
                    "member {index} has weight {}: a number above 0 is needed",
                    card.weight
                ));
            }
            let flat = card.dims == Dims::Two && card.patch[0] != 1;
            let [z, y, x] = card.patch;
            (card.patch.contains(&0) || flat)
                .then(|| format!("member {index} has a patch of {z}×{y}×{x} voxels"))
        })
    }
}

impl Artifact for Predictor {
    const TYPE: &'static str = "predictor";
    const FORMAT: u32 = 2;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(CARD);
        let card: Card = read_json(&path)?;
        if let Some(problem) = card.problem() {
            return Err(StageError::malformed(&path)(problem));
        }
        let member = |entry: Entry| Member { path: dir.join(entry.file), card: entry.card };
        Ok(Self {
            task: card.task,
            combine: card.combine,
            members: card.members.into_iter().map(member).collect(),
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        let mut entries = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            let file = member_file(index);
            let target = dir.join(&file);
            let folder = target.parent().expect("a member has a folder of its own");
            fs::create_dir_all(folder).map_err(StageError::io("create", folder))?;
            // Not a copy: that would also copy the read-only mode of a cached file.
            fs::write(&target, member.read()?).map_err(StageError::io("write", &target))?;
            entries.push(Entry { file, card: member.card.clone() });
        }
        write_json(
            &dir.join(CARD),
            &Card { task: self.task.clone(), combine: self.combine, members: entries },
        )
    }
}
