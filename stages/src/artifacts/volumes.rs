//! Images and label maps on the grid that a network sees, with the way back to the grid of the source files.
//!
//! Only the tables are read when the artifact is opened; voxels are read case by case, and memory does not grow with
//! the number of cases.

use super::files::copy_tree;
use super::table_file::{read_json, read_rows, seven_digits, write_json, write_rows};
use super::{DatasetInfo, FileRef, Preparation};
use crate::{artifact::Artifact, error::StageError, kinds::listing::counted};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Image, LabelMap, Shape, npy};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Prepared cases, sorted by `id`; ids are unique.
///
/// On disk: `volumes.json` ([`VolumesInfo`]), `meta.csv` (one row a case) and for each case `images/ID.npy`
/// (`float32`, `[c, z, y, x]`), `labels/ID.npy` (`uint8`, `[z, y, x]`; only where the case has a label) and
/// `transforms/ID.json` ([`Transform`]). Python reads them with `numpy.load(path, mmap_mode="r")` and
/// `pandas.read_csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct Volumes {
    pub info: VolumesInfo,
    pub rows: Vec<VolumeRow>,
    root: PathBuf,
}

/// What the cases are, and how every one was prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumesInfo {
    pub dataset: DatasetInfo,
    pub preparation: Preparation,
}

/// One case. Shapes are in voxels, spacings have seven significant digits; axis order z, y, x.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRow {
    pub id: String,
    pub patient: String,
    pub channels: usize,
    /// Of the prepared volume, whose axes are RAS.
    pub shape: [usize; 3],
    pub spacing_mm: [f64; 3],
    /// Of the source files, in the order in which they store their axes.
    pub source_shape: [usize; 3],
    pub source_spacing_mm: [f64; 3],
    /// The label file of the source, for scores in source space. `None` for a case without label.
    pub label: Option<FileRef>,
}

impl Volumes {
    const INFO: &str = "volumes.json";
    const ROWS: &str = "meta.csv";
    const IMAGES: Folder = Folder { name: "images", extension: "npy" };
    const LABELS: Folder = Folder { name: "labels", extension: "npy" };
    const TRANSFORMS: Folder = Folder { name: "transforms", extension: "json" };

    /// Cases whose files were written below `root` by [`Volumes::write_case`]. Sorts the rows by id.
    pub fn new(info: VolumesInfo, mut rows: Vec<VolumeRow>, root: &Path) -> Self {
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Self { info, rows, root: root.to_owned() }
    }

    /// Writes the files of one case below `root`; the tables come with [`Artifact::store`].
    ///
    /// `image` and `label` are on the target grid of `transform`.
    pub fn write_case(
        root: &Path,
        id: &str,
        image: &Image,
        label: Option<&LabelMap>,
        transform: &Transform,
    ) -> Result<(), StageError> {
        let writing = |what: &str| StageError::inner(format!("writing {what} of case `{id}`"));
        npy::write_image(&Self::IMAGES.create(root, id)?, image).map_err(writing("image"))?;
        if let Some(label) = label {
            npy::write_label(&Self::LABELS.create(root, id)?, label).map_err(writing("label"))?;
        }
        write_json(&Self::TRANSFORMS.create(root, id)?, transform)
    }

    pub fn row(&self, id: &str) -> Result<&VolumeRow, StageError> {
        let index = self.rows.binary_search_by(|row| row.id.as_str().cmp(id));
        let index = index.map_err(|_| StageError::Data(format!("the volumes hold no case `{id}`")))?;
        Ok(&self.rows[index])
    }

    /// Reads a prepared image, `[c, z, y, x]`.
    pub fn image(&self, id: &str) -> Result<Image, StageError> {
        let row = self.row(id)?;
        let path = Self::IMAGES.path(&self.root, id)?;
        let grid = *self.transform(id)?.target();
        let image = npy::read_image(&path, grid)
            .map_err(StageError::inner(format!("reading image of case `{id}`")))?;
        if image.channels() != row.channels {
            return Err(self.contradiction(
                row,
                &format!("has {}", counted(row.channels, "channel")),
                image.channels(),
            ));
        }
        Ok(image)
    }

    /// Reads a prepared label map, `[z, y, x]`, with the label values of the source. `None` for a case without label.
    pub fn label(&self, id: &str) -> Result<Option<LabelMap>, StageError> {
        if self.row(id)?.label.is_none() {
            return Ok(None);
        }
        let path = Self::LABELS.path(&self.root, id)?;
        let grid = *self.transform(id)?.target();
        let label = npy::read_label(&path, grid)
            .map_err(StageError::inner(format!("reading label of case `{id}`")))?;
        Ok(Some(label))
    }

    /// Reads what takes a prediction for this case back to the grid of its source files.
    pub fn transform(&self, id: &str) -> Result<Transform, StageError> {
        let row = self.row(id)?;
        let transform: Transform = read_json(&Self::TRANSFORMS.path(&self.root, id)?)?;
        let (source, target) = (transform.source(), transform.target());
        for (what, listed, found) in
            [("", row.shape, target.shape), ("source ", row.source_shape, source.shape)]
        {
            if listed != found.0 {
                let listed = format!("has a {what}grid of {} voxels", Shape(listed));
                return Err(self.contradiction(row, &listed, found));
            }
        }
        for (what, listed, found) in [
            ("", row.spacing_mm, target.spacing_mm()),
            ("source ", row.source_spacing_mm, source.spacing_mm()),
        ] {
            if listed != found.map(seven_digits) {
                let listed = format!("has {what}voxels of {listed:?} mm");
                return Err(self.contradiction(row, &listed, format!("{found:?}")));
            }
        }
        Ok(transform)
    }

    /// The smallest shape (z, y, x) that holds the prepared volumes of all these cases; ids without row do not count.
    pub fn largest_shape<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> [usize; 3] {
        let shapes = ids.into_iter().filter_map(|id| Some(self.row(id).ok()?.shape));
        shapes.fold([0; 3], |a, b| [0, 1, 2].map(|axis| a[axis].max(b[axis])))
    }

    fn contradiction(&self, row: &VolumeRow, listed: &str, found: impl std::fmt::Display) -> StageError {
        let text = format!("case `{}` {listed} by this table but {found} by its own files", row.id);
        StageError::malformed(&self.root.join(Self::ROWS))(text)
    }

    /// Fails when an image file is too short for its row, so that nobody allocates what only the table claims.
    fn check_sizes(&self) -> Result<(), StageError> {
        for row in &self.rows {
            let path = Self::IMAGES.path(&self.root, &row.id)?;
            let found = fs::metadata(&path).map_err(StageError::io("look at", &path))?.len();
            let voxels = Shape(row.shape).voxels().and_then(|voxels| voxels.checked_mul(row.channels));
            let bytes = voxels.and_then(|voxels| voxels.checked_mul(size_of::<f32>()));
            if bytes.is_none_or(|bytes| bytes == 0 || bytes as u64 > found) {
                let listed =
                    format!("has {} of {} voxels", counted(row.channels, "channel"), Shape(row.shape));
                return Err(self.contradiction(row, &listed, format!("{found} bytes")));
            }
        }
        Ok(())
    }
}

/// A folder with one file a case.
struct Folder {
    name: &'static str,
    extension: &'static str,
}

impl Folder {
    /// The file of a case. An id that would lead out of the folder is refused.
    fn path(&self, root: &Path, id: &str) -> Result<PathBuf, StageError> {
        let mut parts = Path::new(id).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) if name == id => {
                Ok(root.join(self.name).join(format!("{id}.{}", self.extension)))
            }
            _ => {
                Err(StageError::Data(format!("case `{id}` cannot be stored: its name is no name of a file")))
            }
        }
    }

    fn create(&self, root: &Path, id: &str) -> Result<PathBuf, StageError> {
        let path = self.path(root, id)?;
        let folder = root.join(self.name);
        fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
        Ok(path)
    }
}

const COLUMNS: [&str; 17] = [
    "id",
    "patient",
    "channels",
    "shape_z",
    "shape_y",
    "shape_x",
    "spacing_z_mm",
    "spacing_y_mm",
    "spacing_x_mm",
    "source_shape_z",
    "source_shape_y",
    "source_shape_x",
    "source_spacing_z_mm",
    "source_spacing_y_mm",
    "source_spacing_x_mm",
    "label",
    "label_blake3",
];

/// A line of `meta.csv`, fields in the order of [`COLUMNS`].
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    patient: String,
    channels: usize,
    shape_z: usize,
    shape_y: usize,
    shape_x: usize,
    spacing_z_mm: f64,
    spacing_y_mm: f64,
    spacing_x_mm: f64,
    source_shape_z: usize,
    source_shape_y: usize,
    source_shape_x: usize,
    source_spacing_z_mm: f64,
    source_spacing_y_mm: f64,
    source_spacing_x_mm: f64,
    label: Option<String>,
    label_blake3: Option<Digest>,
}

impl From<&VolumeRow> for Line {
    fn from(row: &VolumeRow) -> Self {
        let [shape_z, shape_y, shape_x] = row.shape;
        let [spacing_z_mm, spacing_y_mm, spacing_x_mm] = row.spacing_mm;
        let [source_shape_z, source_shape_y, source_shape_x] = row.source_shape;
        let [source_spacing_z_mm, source_spacing_y_mm, source_spacing_x_mm] = row.source_spacing_mm;
        Self {
            id: row.id.clone(),
            patient: row.patient.clone(),
            channels: row.channels,
            shape_z,
            shape_y,
            shape_x,
            spacing_z_mm,
            spacing_y_mm,
            spacing_x_mm,
            source_shape_z,
            source_shape_y,
            source_shape_x,
            source_spacing_z_mm,
            source_spacing_y_mm,
            source_spacing_x_mm,
            label: row.label.as_ref().map(|file| file.path.clone()),
            label_blake3: row.label.as_ref().map(|file| file.digest),
        }
    }
}

impl TryFrom<Line> for VolumeRow {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let label = match (line.label, line.label_blake3) {
            (Some(path), Some(digest)) => Some(FileRef { path, digest }),
            (None, None) => None,
            _ => return Err(format!("case `{}` has only one of `label` and `label_blake3`", line.id)),
        };
        Ok(Self {
            id: line.id,
            patient: line.patient,
            channels: line.channels,
            shape: [line.shape_z, line.shape_y, line.shape_x],
            spacing_mm: [line.spacing_z_mm, line.spacing_y_mm, line.spacing_x_mm],
            source_shape: [line.source_shape_z, line.source_shape_y, line.source_shape_x],
            source_spacing_mm: [line.source_spacing_z_mm, line.source_spacing_y_mm, line.source_spacing_x_mm],
            label,
        })
    }
}

impl Artifact for Volumes {
    const TYPE: &'static str = "volumes";
    const FORMAT: u32 = 3;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(Self::ROWS);
        let lines: Vec<Line> = read_rows(&path)?;
        let rows: Result<Vec<VolumeRow>, String> = lines.into_iter().map(VolumeRow::try_from).collect();
        let rows = rows.map_err(StageError::malformed(&path))?;
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            let text =
                format!("case `{}` before case `{}`: ids must be sorted and unique", pair[0].id, pair[1].id);
            return Err(StageError::malformed(&path)(text));
        }
        let volumes = Self { info: read_json(&dir.join(Self::INFO))?, rows, root: dir.to_owned() };
        volumes.check_sizes()?;
        Ok(volumes)
    }

    /// Writes the tables; the files of the cases are copied unless they were made in `dir` itself.
    fn store(&self, dir: &Path) -> Result<(), StageError> {
        if self.root != dir {
            for folder in [Self::IMAGES, Self::LABELS, Self::TRANSFORMS] {
                let from = self.root.join(folder.name);
                if from.is_dir() {
                    copy_tree(&from, &dir.join(folder.name))?;
                }
            }
        }
        write_json(&dir.join(Self::INFO), &self.info)?;
        let lines: Vec<Line> = self.rows.iter().map(Line::from).collect();
        write_rows(&dir.join(Self::ROWS), &COLUMNS, &lines)
    }
}

#[cfg(test)]
mod tests;
