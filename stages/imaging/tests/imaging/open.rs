//! Every format through the one front: read as SimpleITK, nibabel and Pillow read it; what lies is told, not trusted.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use pipe_imaging::open::{self, Format, Options};
use proptest::prelude::*;

use crate::formats::{EXPECTED, path};
use crate::reference;

#[test]
fn metaimage_nrrd_and_nifti_2_are_read_as_simpleitk_and_nibabel_read_them() {
    for expected in &EXPECTED.volumes {
        let name = &expected.file;
        let opened = open::image(&path(name), Options::default()).expect(name);
        assert_eq!(opened.volume.shape().0, expected.shape_zyx, "{name}");
        assert_eq!(opened.volume.channels(), expected.channels, "{name}");
        assert_eq!(opened.datatype.name(), expected.dtype, "{name}");
        // Directions are text of some 16 digits; a quaternion is computed.
        let difference = opened.volume.geometry().affine.max_difference(&expected.affine);
        assert!(difference < 1e-12, "{name}: affine differs by {difference}");
        assert_eq!(opened.volume.as_slice(), expected.values, "{name}");
    }
}

#[test]
fn png_jpeg_and_tiff_are_read_as_pillow_reads_them_and_placed_as_simpleitk_does() {
    for expected in &EXPECTED.rasters {
        let name = &expected.file;
        let opened = open::image(&path(name), Options::default()).expect(name);
        let [y, x] = expected.shape_yx;
        assert_eq!(opened.volume.shape().0, [1, y, x], "{name}");
        assert_eq!(opened.volume.channels(), expected.channels, "{name}");
        assert_eq!(opened.datatype.name(), expected.dtype, "{name}");
        assert_eq!(opened.volume.geometry().affine, expected.affine, "{name}");
        // Decoders of lossy JPEG may round a cosine transform either way.
        let tolerance = if name.contains("jpg") { 1.0 } else { 0.0 };
        let differs = opened
            .volume
            .as_slice()
            .iter()
            .zip(&expected.values)
            .position(|(a, b)| (a - b).abs() > tolerance);
        assert_eq!(differs, None, "{name}");
    }
}

#[track_caller]
fn refused(file: &Path, message: &str) {
    let error = open::image(file, Options::default()).expect_err(message);
    assert!(error.to_string().starts_with("cannot read image `"), "{error}");
    assert_eq!(error.source().expect("cause").to_string(), message);
}

#[test]
fn a_palette_gives_an_image_its_colours_and_a_mask_its_labels() {
    let palettes: Vec<_> = EXPECTED.rasters.iter().filter(|expected| expected.labels.is_some()).collect();
    assert_eq!(palettes.len(), 2);
    for expected in palettes {
        let opened = open::label(&path(&expected.file), Options::default()).expect(&expected.file);
        assert_eq!(opened.volume.as_slice(), expected.labels.as_deref().unwrap(), "{}", expected.file);
    }
    let error = open::label(&path("colour.png"), Options::default()).expect_err("three channels");
    assert_eq!(error.source().expect("cause").to_string(), "label has 3 channels, expected 1");
}

#[test]
fn transparency_and_pages_are_refused() {
    refused(&path("transparent.png"), "pixels are partly transparent, expected opaque ones");
    refused(
        &path("pages.tif"),
        "the TIFF has more than one page; split it into one file a slice, or store it as NIfTI or NRRD",
    );
}

/// Files in a temporary folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("temporary file");
        path
    }
}

#[test]
fn content_tells_the_format_whatever_the_name() {
    let folder = Folder::new();
    let dicom = pipe_imaging::dicom::files_in(&path("dicom_oblique")).expect("files").remove(0);
    for (source, format) in [
        (path("oblique.mha"), Format::MetaImage),
        (path("oblique.nrrd"), Format::Nrrd),
        (path("two_sform.nii.gz"), Format::Nifti),
        (path("two_qform.nii"), Format::Nifti),
        (reference::directory().join("float64_big_endian.nii"), Format::Nifti),
        (path("grey_16.png"), Format::Raster),
        (path("grey.jpg"), Format::Raster),
        (path("grey_8.tif"), Format::Raster),
        (dicom, Format::Dicom),
    ] {
        // As an object of a cache is named.
        let copy = folder.write("0a1b2c", &std::fs::read(&source).expect("reference"));
        assert_eq!(open::format(&copy).expect("known"), format, "{}", source.display());
        let image = open::image(&copy, Options::default()).expect("readable");
        assert_eq!(image.format, format);
    }
    let unknown = folder.write("x.bin", b"%PDF-1.7 and so on");
    refused(
        &unknown,
        "of no known format (it begins with `%PDF-1.7`): expected NIfTI, DICOM, MetaImage, NRRD, PNG, JPEG or TIFF",
    );
    refused(&folder.write("x.nii.gz", b"PK"), "the file has 2 bytes, a NIfTI header has 348");
}

#[test]
fn labels_come_from_every_format_and_fractions_do_not_pass() {
    let label = open::label(&path("grey_8.png"), Options::default()).expect("whole numbers");
    let image = open::image(&path("grey_8.png"), Options::default()).expect("the same file");
    assert!(label.volume.as_slice().iter().zip(image.volume.as_slice()).all(|(&l, &v)| f32::from(l) == v));
    for name in ["grey_16.png", "deflated.nrrd", "two_qform.nii"] {
        let text = open::label(&path(name), Options::default())
            .expect_err(name)
            .source()
            .expect("cause")
            .to_string();
        assert!(text.contains("label values are not whole numbers from 0 to 255"), "{name}: {text}");
    }
    let error = open::label(&path("channels.mha"), Options::default()).expect_err("two channels");
    assert_eq!(error.fault().to_string(), "label has 2 channels, expected 1");
}

fn text_of(name: &str) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path(name)).expect("reference");
    let mark: &[u8] = if name.ends_with("nrrd") { b"\n\n" } else { b"LOCAL\n" };
    let end = bytes.windows(mark.len()).position(|window| window == mark).expect("a header") + mark.len();
    (String::from_utf8(bytes[..end].to_vec()).expect("text"), bytes[end..].to_vec())
}

/// The message for `name` with `from` in its header replaced by `to`.
#[track_caller]
fn lying(name: &str, from: &str, to: &str, message: &str) {
    let (header, voxels) = text_of(name);
    assert!(header.contains(from), "`{from}` is not in\n{header}");
    let folder = Folder::new();
    refused(&folder.write(name, &[header.replace(from, to).as_bytes(), &voxels].concat()), message);
}

#[test]
fn headers_that_lie_are_told_and_cost_nothing() {
    let (header, voxels) = text_of("oblique.mha");
    let folder = Folder::new();
    let lies = header.replace("DimSize = 5 4 3", "DimSize = 500 400 300");
    let file = folder.write("lies.mha", &[lies.as_bytes(), &voxels].concat());
    let text =
        open::image(&file, Options::default()).expect_err("120 MB").source().expect("cause").to_string();
    assert!(text.starts_with("the header declares 120000000 bytes, which a file of "), "{text}");
    lying(
        "oblique.mha",
        "DimSize = 5 4 3",
        "DimSize = 65536 65536 65536",
        "the header declares 281474976710656 voxels, the limit is 536870912",
    );
    lying(
        "oblique.mha",
        "DimSize = 5 4 3",
        "DimSize = 5 -4 3",
        "`DimSize` is `5 -4 3`, expected whole numbers",
    );
    lying(
        "oblique.mha",
        "DimSize = 5 4 3",
        "DimSize = 5 0 3",
        "dimensions [5, 0, 3] are not one to four positive lengths",
    );
    lying(
        "oblique.mha",
        "DimSize = 5 4 3",
        "DimSize = 5 4 2",
        "the header declares 80 bytes of voxels, but more data follow",
    );
    let spacing = "ElementSpacing = 0.75 1.5 3.25";
    for size in ["0", "-0.75", "nan"] {
        let message =
            format!("`ElementSpacing` is `{size} 1.5 3.25`, expected positive lengths in millimetres");
        lying("oblique.mha", spacing, &format!("ElementSpacing = {size} 1.5 3.25"), &message);
    }
    let message = "the affine has voxels of 3.25×1.5×1e30 mm (z×y×x), expected 1e-7 to 1000 mm";
    lying("oblique.mha", spacing, "ElementSpacing = 1e30 1.5 3.25", message);
    lying(
        "oblique.mha",
        "MET_SHORT",
        "MET_SHORT_ARRAY",
        "`ElementType` is `MET_SHORT_ARRAY`, expected a type of 8 to 64 bits such as MET_SHORT",
    );
    lying(
        "oblique.mha",
        "LOCAL",
        "../../etc/passwd",
        "`ElementDataFile` is `../../etc/passwd`, expected the name of a file in the same folder",
    );
    lying(
        "oblique.mha",
        "LOCAL",
        "slice%03d.raw 1 9 1",
        "`ElementDataFile` is `slice%03d.raw 1 9 1`, expected LOCAL or one file",
    );
    lying(
        "oblique.mha",
        "LOCAL",
        "gone.raw",
        "its voxels in `gone.raw` cannot be read: No such file or directory (os error 2)",
    );
    lying("oblique.nrrd", "sizes: 5 4 3", "sizes: 5 4", "`dimension` is `3`, expected the number of `sizes`");
    let directions = "space directions: (0.75,0) (0,1.5)";
    for (spacing, said) in [
        ("space directions: (0.75,0) (0,1e30)", "has voxels of 1×1e30×0.75 mm"),
        ("space directions: (1e-9,0) (0,1.5)", "has voxels of 1×1.5×1e-9 mm"),
        ("space directions: (0,0) (0,1.5)", "has voxels of 1×1.5×0 mm"),
    ] {
        let message = format!("the affine {said} (z×y×x), expected 1e-7 to 1000 mm");
        lying("flat.nrrd", directions, spacing, &message);
    }
    for spacings in ["0 1", "-1 1"] {
        let message = format!(
            "`spacings` is `[{}.0, 1.0]`, expected positive lengths in millimetres",
            &spacings[..spacings.len() - 2]
        );
        lying("flat.nrrd", directions, &format!("spacings: {spacings}"), &message);
    }
    lying("oblique.nrrd", "encoding: raw", "encoding: bzip2", "`encoding` is `bzip2`, expected raw or gzip");
    lying(
        "oblique.nrrd",
        "left-posterior-superior",
        "scanner-xyz",
        "`space` is `scanner-xyz`, expected right-anterior-superior, left-anterior-superior or left-posterior-superior",
    );
    lying("oblique.nrrd", "endian: little\n", "", "the header has no `endian`");
    lying("oblique.nrrd", "sizes: 5 4 3", "sizes", "the header has the line `sizes`, which is no field");
    refused(
        &folder.write("long.nrrd", &[b"NRRD0004\n".as_slice(), &vec![b'#'; 1 << 17]].concat()),
        "the header has more than 65536 bytes",
    );
}

#[test]
fn a_deflated_bomb_is_refused_before_it_is_inflated() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &vec![0; 1 << 22]).expect("in memory");
    let packed = packed.finish().expect("in memory");
    let folder = Folder::new();
    let header = |sizes| format!("NRRD0004\ntype: uchar\ndimension: 3\nsizes: {sizes}\nencoding: gzip\n\n");
    // More than was declared.
    let file = folder.write("tail.nrrd", &[header("8 8 8").as_bytes(), &packed].concat());
    refused(&file, "the header declares 512 bytes of voxels, but more data follow");
    // More than DEFLATE could make of a file of this size.
    let file = folder.write("bomb.nrrd", &[header("800 800 800").as_bytes(), &packed].concat());
    let text =
        open::image(&file, Options::default()).expect_err("a bomb").source().expect("cause").to_string();
    assert!(text.starts_with("the header declares 512000000 bytes, which a file of "), "{text}");
}

/// One file of each kind, whole.
fn seeds() -> Vec<Vec<u8>> {
    let dicom = pipe_imaging::dicom::files_in(&path("dicom_jpeg_lossless")).expect("files").remove(0);
    let names = [
        "oblique.mha",
        "deflated.nrrd",
        "two_sform.nii.gz",
        "two_qform.nii",
        "grey_16.png",
        "grey.jpg",
        "grey_8.tif",
    ];
    names
        .iter()
        .map(|name| path(name))
        .chain([dicom])
        .map(|path| std::fs::read(path).expect("reference"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_byte_of_a_header_can_make_any_reader_panic(
        seed in 0_usize..8,
        changes in prop::collection::vec((0_usize..700, any::<u8>()), 1..6),
        cut in prop::option::of(0_usize..700),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let folder = Folder::new();
        let file = folder.write("mutated", &bytes);
        let options = Options { max_voxels: 1 << 20 };
        if let Ok(image) = open::image(&file, options) {
            prop_assert!(image.volume.as_slice().len() <= 1 << 20);
            prop_assert_eq!(image.volume.geometry().affine.defect(), None);
        }
        let _ = open::label(&file, options);
    }
}
