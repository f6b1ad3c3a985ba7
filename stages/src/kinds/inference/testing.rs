//! Small networks and small cohorts whose predictions can be worked out by hand. Tests only.

use crate::artifact::Artifact;
use crate::artifacts::predictor::{Combine, Member, MemberCard, Predictor, Task};
use crate::artifacts::{
    DatasetInfo, FileRef, FoldRow, FoldTable, Model, ModelCard, Part, Preparation, TrainingFacts, VolumeRow,
    Volumes, VolumesInfo,
};
use crate::testing::TestSpace;
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use pipe_nn::{Architecture, CpuBackend, Dims, Initialization, Io, UNet};
use pipe_onnx::{GraphBuilder, Weights, Window};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) fn labels(labels: &[(u8, &str)]) -> BTreeMap<u8, String> {
    labels.iter().map(|(value, name)| (*value, (*name).to_owned())).collect()
}

/// Background and one structure.
pub(crate) fn two_labels() -> BTreeMap<u8, String> {
    labels(&[(0, "background"), (1, "body")])
}

fn training(fold: usize) -> TrainingFacts {
    TrainingFacts {
        fold,
        training_cases: 4,
        validation_cases: 2,
        epochs: 3,
        epoch: 2,
        validation_dice: Some(0.5),
        validation_auc: None,
    }
}

/// A U-Net of two levels with random weights and one image channel.
pub(crate) fn unet(dims: Dims, labels: &BTreeMap<u8, String>, fold: usize, seed: u64) -> Model {
    let small = UNet { base_features: Some(4), levels: 2, ..UNet::default() };
    let architecture =
        if dims == Dims::Two { Architecture::Unet2d(small) } else { Architecture::Unet3d(small) };
    model(architecture, labels, fold, seed)
}

/// A network with random weights and one image channel, for patches of 8 voxels an axis.
pub(crate) fn model(
    architecture: Architecture,
    labels: &BTreeMap<u8, String>,
    fold: usize,
    seed: u64,
) -> Model {
    let patch = architecture.dims().axes(8);
    let io = Io { channels: 1, classes: labels.len(), size: patch };
    let network = architecture.network(io).expect("the configuration is valid");
    let start = pipe_nn::Model::new(CpuBackend::default(), network, Initialization::default(), seed);
    Model {
        card: ModelCard {
            architecture,
            io,
            patch,
            preparation: Preparation::NONE,
            labels: labels.clone(),
            training: training(fold),
        },
        weights: start.parameters().to_safetensors(),
    }
}

/// A network that sees one voxel at a time: the logit of class `i` is `weights[i] · intensity + biases[i]`.
pub(crate) fn voxelwise(
    space: &TestSpace,
    dims: Dims,
    weights: &[f32],
    biases: &[f32],
    fold: usize,
) -> Member {
    let graph_dims = if dims == Dims::Two { pipe_onnx::Dims::Two } else { pipe_onnx::Dims::Three };
    let ones = vec![1; dims.count()];
    let mut graph = GraphBuilder::new("voxelwise", 1, graph_dims).expect("one channel");
    let input = graph.input();
    let shape = [&[weights.len(), 1], ones.as_slice()].concat();
    let weight = Weights { shape: &shape, values: weights };
    let head =
        graph.conv("head", &input, weight, Some(biases), &Window::tight(&ones)).expect("a 1×1×1 convolution");
    let bytes = graph.build(&head).expect("one layer");
    let digest = Digest::of_bytes(&bytes);
    let path = space.path().join(format!("{digest}.onnx"));
    fs::write(&path, bytes).expect("temporary file");
    let card = MemberCard {
        name: format!("voxelwise {fold}"),
        weight: 1.0,
        dims,
        architecture: "one voxel".into(),
        patch: dims.axes(8),
        fold: Some(fold),
        training: Some(training(fold)),
        digest,
    };
    Member { card, path }
}

/// A network whose label is 1 exactly where the intensity is above `threshold`.
pub(crate) fn above(space: &TestSpace, threshold: f32, fold: usize) -> Member {
    voxelwise(space, Dims::Three, &[-8.0, 8.0], &[8.0 * threshold, -8.0 * threshold], fold)
}

pub(crate) fn predictor(space: &TestSpace, labels: &BTreeMap<u8, String>, members: Vec<Member>) -> PathBuf {
    let task = Task { labels: labels.clone(), channels: 1, preparation: Preparation::NONE };
    space.stored(&Predictor { task, combine: Combine::default(), members })
}

/// A case as its files would be, and where it belongs.
pub(crate) struct TestCase {
    pub(crate) id: &'static str,
    pub(crate) image: Image,
    pub(crate) label: Option<LabelMap>,
    pub(crate) part: Part,
}

/// A case of one row of voxels.
pub(crate) fn row_case(id: &'static str, part: Part, image: &[f32], label: Option<&[u8]>) -> TestCase {
    let grid = Geometry::with_spacing([1, 1, image.len()], [1.0; 3]);
    let image = Image::from_vec(image.to_vec(), 1, grid).expect("one row");
    let label = label.map(|label| LabelMap::from_vec(label.to_vec(), grid).expect("one row"));
    TestCase { id, image, label, part }
}

/// Volumes and split as stages would have stored them.
pub(crate) struct Cohort {
    pub(crate) volumes: PathBuf,
    pub(crate) split: PathBuf,
}

impl Cohort {
    /// Stores the cases, prepared by `transform`.
    pub(crate) fn new(
        space: &TestSpace,
        labels: &BTreeMap<u8, String>,
        cases: &[TestCase],
        transform: impl Fn(&Geometry) -> Transform,
    ) -> Self {
        let (prepared, sources) = (space.path().join("prepared"), space.path().join("sources"));
        for dir in [&prepared, &sources] {
            fs::create_dir_all(dir).expect("temporary folder");
        }
        let rows = cases.iter().map(|case| store_case(case, &prepared, &sources, &transform)).collect();
        space.ingest(&sources);
        let dataset =
            DatasetInfo { labels: labels.clone(), channels: vec!["MRI".into()], ..DatasetInfo::default() };
        let info = VolumesInfo { dataset, preparation: Preparation::NONE };
        let volumes = space.stored(&Volumes::new(info, rows, &prepared));
        let row = |case: &TestCase| FoldRow { id: case.id.into(), patient: patient(case), part: case.part };
        let mut rows: Vec<FoldRow> = cases.iter().map(row).collect();
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Self { volumes, split: space.stored(&FoldTable { rows }) }
    }

    /// Stores the cases as they are.
    pub(crate) fn plain(space: &TestSpace, labels: &BTreeMap<u8, String>, cases: &[TestCase]) -> Self {
        Self::new(space, labels, cases, Transform::new)
    }

    pub(crate) fn inputs<'a>(&'a self, predictor: &'a Path) -> [(&'static str, &'a Path); 3] {
        [("model", predictor), ("volumes", &self.volumes), ("split", &self.split)]
    }

    /// Changes what the volumes say about themselves.
    pub(crate) fn edit_info(&self, edit: impl FnOnce(&mut VolumesInfo)) {
        let mut volumes = Volumes::load(&self.volumes).expect("stored just now");
        edit(&mut volumes.info);
        volumes.store(&self.volumes).expect("stored before");
    }
}

fn patient(case: &TestCase) -> String {
    format!("patient of {}", case.id)
}

fn store_case(
    case: &TestCase,
    root: &Path,
    sources: &Path,
    transform: impl Fn(&Geometry) -> Transform,
) -> VolumeRow {
    let source = case.image.geometry();
    let transform = transform(source);
    let image = transform.apply_image(&case.image).expect("an image of the source grid");
    let prepared = case.label.as_ref().filter(|label| label.geometry() == source);
    let prepared = prepared.map(|label| transform.apply_label(label).expect("a label of the source grid"));
    Volumes::write_case(root, case.id, &image, prepared.as_ref(), &transform).expect("temporary files");
    let label = case.label.as_ref().map(|label| {
        let path = sources.join(format!("{}.nii.gz", case.id));
        nifti::write_label(&path, label).expect("temporary file");
        let digest = Digest::of_bytes(&fs::read(&path).expect("written just now"));
        FileRef { path: format!("labelsTr/{}.nii.gz", case.id), digest }
    });
    let seven_digits = crate::artifacts::table_file::seven_digits;
    VolumeRow {
        id: case.id.into(),
        patient: patient(case),
        channels: image.channels(),
        shape: image.shape().0,
        spacing_mm: image.geometry().spacing_mm().map(seven_digits),
        source_shape: source.shape.0,
        source_spacing_mm: source.spacing_mm().map(seven_digits),
        label,
    }
}
