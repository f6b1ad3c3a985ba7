//! The cases of a data set: which files hold them, whose they are, and what their voxels are.
//!
//! Files are named by content digest and by a path relative to the data set, never by an absolute path:
//! [`StageContext::source`](crate::context::StageContext::source) turns a digest into a readable path.

use super::table_file::{read_json, write_json};
use crate::{artifact::Artifact, error::StageError};
use fs_err as fs;
use pipe_cache::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::{path::Path, str::FromStr};

/// Every usable case of a data set, sorted by `id`; ids are unique.
///
/// On disk: `cases.csv` (one row a case; `image` and `image_blake3` name the first image file, further channel
/// files are `image_1`, `image_1_blake3`, …; `annotation:NAME`, `annotation_blake3:NAME` and
/// `annotation_voxels_blake3:NAME` are the label map of an annotator, `info:NAME` a column of the user's) and `table.json` ([`DatasetInfo`]).
#[derive(Debug, Clone, PartialEq)]
pub struct CaseTable {
    pub dataset: DatasetInfo,
    pub cases: Vec<Case>,
}

/// What holds for the whole data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    pub name: String,
    pub description: String,
    /// Who made the data and where they are described.
    pub reference: String,
    pub licence: String,
    /// Name of each image channel, e.g. `["MRI"]`.
    pub channels: Vec<String>,
    /// Meaning of each label value, background (0) included.
    pub labels: BTreeMap<u8, String>,
}

impl DatasetInfo {
    /// Label values and names without background, in order of value.
    pub fn foreground(&self) -> impl Iterator<Item = (u8, &str)> {
        self.labels.iter().filter(|(value, _)| **value != 0).map(|(value, name)| (*value, name.as_str()))
    }
}

/// A file of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Relative to the root of the data set, with `/` between names. For people; never opened.
    pub path: String,
    /// blake3 of the bytes of the file: the key for [`StageContext::source`](crate::context::StageContext::source).
    pub digest: Digest,
}

/// One image with its label map, if it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub id: String,
    pub patient: String,
    /// What the image shows as a whole, for classification.
    pub class: Option<String>,
    /// At least one. Several files are the channels of one image, in order; a 4D file holds all its channels.
    pub images: Vec<FileRef>,
    pub label: Option<FileRef>,
    /// What others say beside `label`, sorted by annotator.
    pub annotations: Vec<Annotation>,
    /// What the user's table says besides, by column: site, scanner, official split, …
    pub info: BTreeMap<String, String>,
    /// Digest of the shape and the voxel values of the image: equal for the same image stored twice, whatever the
    /// compression, value type or file name.
    pub voxels: Digest,
    /// The same of the label map.
    pub label_voxels: Option<Digest>,
    /// Number of label voxels that are not background.
    pub label_foreground: Option<u64>,
    /// Axis order z, y, x; as stored in the file.
    pub shape: [usize; 3],
    /// Axis order z, y, x.
    pub spacing_mm: [f64; 3],
    /// Where the stored x, y and z axes point, e.g. `RAS`.
    pub orientation: String,
    /// Value type of the image as stored, e.g. `float32`.
    pub dtype: String,
    pub channels: usize,
}

/// The label map of one annotator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Unique within the case.
    pub annotator: String,
    pub file: FileRef,
    /// Digest of the shape and the values.
    pub voxels: Digest,
}

/// The part of a data set that its authors put a case into; in ascending order of what must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OfficialPart {
    Train,
    Validation,
    Test,
}

impl OfficialPart {
    /// Where the authors' part stands unless a parameter says otherwise.
    pub const COLUMN: &str = "split";

    /// `None` for a text that names no part.
    pub fn of(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

impl Case {
    /// The first (mostly the only) image file.
    pub fn image(&self) -> &FileRef {
        self.images.first().expect("load and import refuse a case without image")
    }
}

impl CaseTable {
    /// The case with this id.
    pub fn get(&self, id: &str) -> Option<&Case> {
        let index = self.cases.binary_search_by(|case| case.id.as_str().cmp(id)).ok()?;
        self.cases.get(index)
    }

    /// The same data set with only the cases that `keep` accepts.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&Case) -> bool) -> Self {
        let cases = self.cases.iter().filter(|case| keep(case)).cloned().collect();
        Self { dataset: self.dataset.clone(), cases }
    }

    pub fn patients(&self) -> BTreeSet<&str> {
        self.cases.iter().map(|case| case.patient.as_str()).collect()
    }
}

/// Before the name of an annotator: file, its digest, the digest of its voxels. No name of ours has a colon.
const ANNOTATION: [&str; 3] = ["annotation:", "annotation_blake3:", "annotation_voxels_blake3:"];
const INFO: &str = "info:";
const DATASET: &str = "table.json";
const CASES: &str = "cases.csv";
const FIXED_COLUMNS: [&str; 16] = [
    "class",
    "label",
    "label_blake3",
    "voxels_blake3",
    "label_voxels_blake3",
    "label_foreground",
    "shape_z",
    "shape_y",
    "shape_x",
    "spacing_z_mm",
    "spacing_y_mm",
    "spacing_x_mm",
    "orientation",
    "dtype",
    "channels",
    "image_files",
];

impl Artifact for CaseTable {
    const TYPE: &'static str = "case-table";
    const FORMAT: u32 = 3;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let path = dir.join(CASES);
        let text = fs::read(&path).map_err(StageError::io("read", &path))?;
        let mut cases = Vec::new();
        for row in csv::Reader::from_reader(text.as_slice()).deserialize() {
            let row: BTreeMap<String, String> = row.map_err(StageError::malformed(&path))?;
            cases.push(Row(&row).case().map_err(StageError::malformed(&path))?);
        }
        if let Some(pair) = cases.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            let text =
                format!("case `{}` before case `{}`: ids must be sorted and unique", pair[0].id, pair[1].id);
            return Err(StageError::malformed(&path)(text));
        }
        Ok(Self { dataset: read_json(&dir.join(DATASET))?, cases })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_json(&dir.join(DATASET), &self.dataset)?;
        let files = self.cases.iter().map(|case| case.images.len()).max().unwrap_or(1).max(1);
        let mut columns = vec!["id".to_owned(), "patient".to_owned()];
        for index in 0..files {
            columns.extend([image_column(index), image_column(index) + "_blake3"]);
        }
        columns.extend(FIXED_COLUMNS.map(str::to_owned));
        let annotations = self.cases.iter().flat_map(|case| &case.annotations);
        let annotators: BTreeSet<&str> =
            annotations.map(|annotation| annotation.annotator.as_str()).collect();
        for annotator in &annotators {
            columns.extend(ANNOTATION.map(|prefix| format!("{prefix}{annotator}")));
        }
        let infos: BTreeSet<&str> =
            self.cases.iter().flat_map(|case| case.info.keys().map(String::as_str)).collect();
        columns.extend(infos.iter().map(|name| format!("{INFO}{name}")));
        let mut writer = csv::Writer::from_writer(Vec::new());
        let path = dir.join(CASES);
        let doing = || format!("writing `{}`", path.display());
        writer.write_record(&columns).map_err(StageError::inner(doing()))?;
        for case in &self.cases {
            let mut fields = record(case, files);
            for annotator in &annotators {
                let found = case.annotations.iter().find(|annotation| annotation.annotator == *annotator);
                fields.extend(found.map_or_else(Default::default, |annotation| {
                    let Annotation { file, voxels, .. } = annotation;
                    [file.path.clone(), file.digest.to_string(), voxels.to_string()]
                }));
            }
            fields.extend(infos.iter().map(|name| case.info.get(*name).cloned().unwrap_or_default()));
            writer.write_record(fields).map_err(StageError::inner(doing()))?;
        }
        let bytes = writer.into_inner().map_err(|error| StageError::Internal(error.to_string()))?;
        fs::write(&path, bytes).map_err(StageError::io("write", &path))
    }
}

fn image_column(index: usize) -> String {
    if index == 0 { "image".to_owned() } else { format!("image_{index}") }
}

fn record(case: &Case, files: usize) -> Vec<String> {
    let mut fields = vec![case.id.clone(), case.patient.clone()];
    for index in 0..files {
        let file = case.images.get(index);
        fields.push(file.map_or_else(String::new, |file| file.path.clone()));
        fields.push(file.map_or_else(String::new, |file| file.digest.to_string()));
    }
    fields.push(case.class.clone().unwrap_or_default());
    let label = case.label.as_ref();
    fields.push(label.map_or_else(String::new, |file| file.path.clone()));
    fields.push(label.map_or_else(String::new, |file| file.digest.to_string()));
    fields.push(case.voxels.to_string());
    fields.push(case.label_voxels.map_or_else(String::new, |digest| digest.to_string()));
    fields.push(case.label_foreground.map_or_else(String::new, |count| count.to_string()));
    fields.extend(case.shape.map(|size| size.to_string()));
    fields.extend(case.spacing_mm.map(|size| size.to_string()));
    fields.extend([case.orientation.clone(), case.dtype.clone(), case.channels.to_string()]);
    fields.push(case.images.len().to_string());
    fields
}

/// A line of `cases.csv` by column name.
struct Row<'a>(&'a BTreeMap<String, String>);

impl Row<'_> {
    fn case(&self) -> Result<Case, String> {
        let images: Result<Vec<_>, _> =
            (0..self.parse("image_files")?).map(|index| self.file(&image_column(index))).collect();
        let images: Vec<FileRef> = images?.into_iter().flatten().collect();
        if images.is_empty() {
            return Err(format!("case `{}` has no image", self.text("id")?));
        }
        Ok(Case {
            id: self.text("id")?.to_owned(),
            patient: self.text("patient")?.to_owned(),
            class: self.optional("class", |row, column| row.text(column).map(str::to_owned))?,
            images,
            label: self.file("label")?,
            annotations: self.annotations()?,
            info: self.info(),
            voxels: self.digest("voxels_blake3")?,
            label_voxels: self.optional("label_voxels_blake3", Self::digest)?,
            label_foreground: self.optional("label_foreground", Self::parse)?,
            shape: [self.parse("shape_z")?, self.parse("shape_y")?, self.parse("shape_x")?],
            spacing_mm: [
                self.parse("spacing_z_mm")?,
                self.parse("spacing_y_mm")?,
                self.parse("spacing_x_mm")?,
            ],
            orientation: self.text("orientation")?.to_owned(),
            dtype: self.text("dtype")?.to_owned(),
            channels: self.parse("channels")?,
        })
    }

    fn annotations(&self) -> Result<Vec<Annotation>, String> {
        let [file, digest, voxels] = ANNOTATION;
        let mut annotations = Vec::new();
        for (column, path) in self.0 {
            let Some(annotator) = column.strip_prefix(file).filter(|_| !path.is_empty()) else { continue };
            let digest = self.digest(&format!("{digest}{annotator}"))?;
            let voxels = self.digest(&format!("{voxels}{annotator}"))?;
            let file = FileRef { path: path.clone(), digest };
            annotations.push(Annotation { annotator: annotator.to_owned(), file, voxels });
        }
        Ok(annotations)
    }

    /// An empty field says nothing.
    fn info(&self) -> BTreeMap<String, String> {
        let columns = self.0.iter().filter_map(|(column, text)| Some((column.strip_prefix(INFO)?, text)));
        columns
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), text.clone()))
            .collect()
    }

    fn text(&self, column: &str) -> Result<&str, String> {
        self.0.get(column).map(String::as_str).ok_or_else(|| format!("column `{column}` is missing"))
    }

    fn parse<T: FromStr>(&self, column: &str) -> Result<T, String> {
        let text = self.text(column)?;
        text.parse().map_err(|_| format!("column `{column}` holds `{text}`, which is not a number"))
    }

    fn optional<T>(
        &self,
        column: &str,
        read: fn(&Self, &str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.text(column)?.is_empty() { Ok(None) } else { read(self, column).map(Some) }
    }

    fn digest(&self, column: &str) -> Result<Digest, String> {
        let text = self.text(column)?;
        text.parse()
            .map_err(|error: pipe_cache::CacheError| format!("column `{column}` holds `{text}`: {error}"))
    }

    fn file(&self, column: &str) -> Result<Option<FileRef>, String> {
        match self.text(column)? {
            "" => Ok(None),
            path => {
                Ok(Some(FileRef { path: path.to_owned(), digest: self.digest(&format!("{column}_blake3"))? }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> FileRef {
        FileRef { path: path.into(), digest: Digest::of_bytes(path.as_bytes()) }
    }

    fn case(id: &str, images: &[&str], label: Option<&str>) -> Case {
        Case {
            id: id.into(),
            patient: "p, \"1\"".into(),
            class: label.map(str::to_uppercase),
            images: images.iter().map(|path| file(path)).collect(),
            label: label.map(file),
            annotations: Vec::new(),
            info: BTreeMap::new(),
            voxels: Digest::of_bytes(id.as_bytes()),
            label_voxels: label.map(|path| Digest::of_bytes(path.as_bytes())),
            label_foreground: label.map(|_| 7),
            shape: [3, 4, 5],
            spacing_mm: [0.1, 1.0 / 3.0, 2.5e-7],
            orientation: "LPS".into(),
            dtype: "int16".into(),
            channels: images.len(),
        }
    }

    fn table(cases: Vec<Case>) -> CaseTable {
        let labels = BTreeMap::from([(0, "background".to_owned()), (255, "edge, soft".to_owned())]);
        CaseTable { dataset: DatasetInfo { name: "n".into(), labels, ..DatasetInfo::default() }, cases }
    }

    #[track_caller]
    fn check(table: &CaseTable) {
        let dir = tempfile::tempdir().expect("temporary folder");
        table.store(dir.path()).expect("a table is written");
        assert_eq!(&CaseTable::load(dir.path()).expect("a table is read"), table);
    }

    #[test]
    fn a_table_reads_back_as_it_was() {
        check(&table(Vec::new()));
        check(&table(vec![case("a", &["x.nii"], Some("l.nii")), case("b", &["ü, \"y\".nii"], None)]));
        check(&table(vec![case("a", &["t1", "t2", "flair"], Some("l")), case("b", &["t1"], None)]));
    }

    #[test]
    fn annotators_and_further_columns_read_back() {
        let annotation = |annotator: &str| Annotation {
            annotator: annotator.into(),
            file: file(&format!("{annotator}.nii")),
            voxels: Digest::of_bytes(annotator.as_bytes()),
        };
        let mut one = case("a", &["x"], None);
        one.annotations = vec![annotation("ann"), annotation("ann_blake3"), annotation("bob, jr")];
        one.info = [("site".into(), "Basel, \"old\"".into()), ("split".into(), "train".into())].into();
        let mut two = case("b", &["x"], Some("l"));
        two.annotations = vec![annotation("carl")];
        two.info = [("split".into(), "test".into())].into();
        check(&table(vec![one, two, case("c", &["z"], None)]));
    }

    /// What is said about a table of cases `a` and `b` after `change` was done to its `cases.csv`.
    fn complaint(change: impl Fn(&str) -> String) -> String {
        let dir = tempfile::tempdir().expect("temporary folder");
        table(vec![case("a", &["x"], None), case("b", &["y"], None)])
            .store(dir.path())
            .expect("a table is written");
        let path = dir.path().join(CASES);
        let text = fs::read_to_string(&path).expect("the table is there");
        fs::write(&path, change(&text)).expect("the table is changed");
        CaseTable::load(dir.path()).expect_err("the table is broken").chain()
    }

    #[test]
    fn a_broken_table_is_told_with_its_column() {
        assert!(complaint(|text| text.replace("shape_y", "height")).ends_with("column `shape_y` is missing"));
        assert!(
            complaint(|text| text.replace(",3,4,5,", ",3,four,5,")).contains("column `shape_y` holds `four`")
        );
        let digest = Digest::of_bytes(b"x").to_string();
        assert!(complaint(|text| text.replace(&digest, "abc")).contains("column `image_blake3` holds `abc`"));
        assert!(complaint(|text| text.replace("\na,", "\nb,")).contains("case `b` before case `b`"));
        assert!(complaint(|text| text.replace("\na,", "\nz,")).contains("case `z` before case `b`"));
        assert!(complaint(|text| text.replace(",1,1\n", ",1,0\n")).contains("case `a` has no image"));
    }

    #[test]
    fn cases_are_found_by_id() {
        let table = table(vec![case("a", &["x"], None), case("c", &["y"], None)]);
        assert_eq!(table.get("c").map(|case| case.id.as_str()), Some("c"));
        assert_eq!(table.get("b"), None);
        assert_eq!(table.filtered(|case| case.id == "c").cases.len(), 1);
    }
}
