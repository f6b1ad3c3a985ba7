//! A small data set on disk, made case by case. Tests only.

use crate::artifacts::{Case, CaseTable, DatasetInfo, FileRef};
use crate::error::StageError;
use crate::stage::Stage;
use crate::testing::{TestRun, TestSpace};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::{Affine, Geometry, Image, LabelMap, nifti};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(crate) struct Cohort {
    pub(crate) space: TestSpace,
    pub(crate) table: CaseTable,
}

impl Cohort {
    pub(crate) fn new() -> Self {
        let dataset = DatasetInfo {
            name: "Squares".into(),
            channels: vec!["MRI".into()],
            labels: [(0, "background".into()), (1, "one".into()), (7, "seven".into())].into(),
            ..DatasetInfo::default()
        };
        Self { space: TestSpace::new(), table: CaseTable { dataset, cases: Vec::new() } }
    }

    /// Cases `c000`, `c001`, … of 4×5×6 voxels with the label of [`label`].
    pub(crate) fn of(cases: usize) -> Self {
        let mut cohort = Self::new();
        (0..cases).for_each(|_| cohort.add_next());
        cohort
    }

    pub(crate) fn add_next(&mut self) {
        let number = self.table.cases.len();
        let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
        self.add(&format!("c{number:03}"), &[&image(&grid, number as u32)], Some(&label(&grid)));
    }

    /// Writes the files of a case and lists it; `images` are its channels, one file each.
    pub(crate) fn add(&mut self, id: &str, images: &[&Image], label: Option<&LabelMap>) {
        let grid = *images[0].geometry();
        let mut files = Vec::new();
        for (channel, image) in images.iter().enumerate() {
            let path = self.path(&format!("{id}_{channel}.nii.gz"));
            nifti::write_image(&path, image).expect("image can be written");
            files.push(self.file(&path));
        }
        let label = label.map(|label| {
            let path = self.path(&format!("{id}_label.nii.gz"));
            nifti::write_label(&path, label).expect("label can be written");
            self.file(&path)
        });
        self.table.cases.push(Case {
            annotations: Vec::new(),
            info: std::collections::BTreeMap::default(),
            id: id.into(),
            patient: format!("patient of {id}"),
            voxels: files[0].digest,
            label_voxels: label.as_ref().map(|file| file.digest),
            label_foreground: None,
            class: None,
            images: files,
            label,
            shape: grid.shape.0,
            spacing_mm: grid.spacing_mm(),
            orientation: grid.orientation().to_string(),
            dtype: "float32".into(),
            channels: images.iter().map(|image| image.channels()).sum(),
        });
        self.table.cases.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// The bytes of the uncompressed file of an image.
    pub(crate) fn file_of(&self, image: &Image) -> Vec<u8> {
        let path = self.path("spare.nii");
        nifti::write_image(&path, image).expect("image can be written");
        fs::read(&path).expect("file was just written")
    }

    /// Puts other bytes in the place of the only image of a case.
    pub(crate) fn replace_image(&mut self, id: &str, bytes: &[u8]) {
        let path = self.path(&format!("{id}_0.nii.gz"));
        fs::write(&path, bytes).expect("file can be written");
        let file = self.file(&path);
        self.table
            .cases
            .iter_mut()
            .filter(|case| case.id == id)
            .for_each(|case| case.images = vec![file.clone()]);
    }

    /// Runs `S`, whose only input is `cases`.
    #[track_caller]
    pub(crate) fn run<S: Stage>(&self, params: Value) -> Result<TestRun, StageError> {
        self.space.run::<S>(params, &[("cases", &self.space.stored(&self.table))])
    }

    fn path(&self, name: &str) -> PathBuf {
        let folder = self.space.path().join("data");
        fs::create_dir_all(&folder).expect("temporary folder");
        folder.join(name)
    }

    fn file(&self, path: &Path) -> FileRef {
        self.space.ingest(path);
        let digest = Digest::of_bytes(&fs::read(path).expect("file was just written"));
        FileRef {
            path: format!("data/{}", path.file_name().expect("a file has a name").to_string_lossy()),
            digest,
        }
    }
}

/// A grid whose stored axes x, y, z point to posterior, inferior and right: none is where RAS has it.
pub(crate) fn turned(shape: [usize; 3], [right, posterior, inferior]: [f64; 3]) -> Geometry {
    let affine = Affine([
        [0.0, 0.0, right, -31.0],
        [-posterior, 0.0, 0.0, 17.0],
        [0.0, -inferior, 0.0, 5.0],
        [0.0, 0.0, 0.0, 1.0],
    ]);
    Geometry::new(shape, affine)
}

/// Voxels from 1 to 1024 without order.
pub(crate) fn image(grid: &Geometry, seed: u32) -> Image {
    let count = grid.shape.voxels().expect("a small grid") as u32;
    let value = |index: u32| (index.wrapping_add(seed << 16).wrapping_mul(2_654_435_761) >> 22) as f32 + 1.0;
    Image::from_vec((0..count).map(value).collect(), 1, *grid).expect("as many values as voxels")
}

/// Labels 1 and 7 in the inside of a grid, and nothing symmetric.
pub(crate) fn label(grid: &Geometry) -> LabelMap {
    let [z, y, x] = grid.shape.0;
    let inside = |at: usize, size: usize| at > 0 && at + 1 < size;
    let value = |index: usize| {
        let at = [index / (y * x), index / x % y, index % x];
        let inner = inside(at[0], z) && inside(at[1], y) && inside(at[2], x);
        match (inner, (at[0] + 2 * at[1] + 4 * at[2]) % 3) {
            (true, 0) => 1,
            (true, 1) => 7,
            _ => 0,
        }
    };
    LabelMap::from_vec((0..z * y * x).map(value).collect(), *grid).expect("as many values as voxels")
}
