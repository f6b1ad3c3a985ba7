//! Volumes to `.nii` and `.nii.gz` through the crate `nifti`. Same volume, same bytes: no time, name or host enters.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use ndarray::Axis;
use nifti::writer::WriterOptions;
use nifti::{Endianness, NiftiHeader};

use super::affine::quaternion;
use super::fault::{Error, Fault};
use crate::volume::{Geometry, Image, LabelMap};

/// Writes an image as `float32`; compressed when the name ends in `.gz`.
///
/// The affine is stored as sform (and as qform where a quaternion can express it) in `f32`, NIfTI's precision.
/// One channel makes a three-dimensional file, several a four-dimensional one. A file of that name is replaced when
/// all has been written.
pub fn write_image(path: &Path, image: &Image) -> Result<(), Error> {
    // Reversed: the crate, as nibabel, makes the first axis the fastest of the file.
    let voxels = image.voxels().reversed_axes();
    let bytes = size_of_val(image.as_slice());
    let written = write(path, image.geometry(), image.channels(), bytes, |options| match image.channels() {
        1 => options.write_nifti(&voxels.index_axis(Axis(3), 0)),
        _ => options.write_nifti(&voxels),
    });
    written.map_err(|fault| Error::new("write image", path, fault))
}

/// Writes a label map as `uint8`; compressed when the name ends in `.gz`. See [`write_image`].
pub fn write_label(path: &Path, label: &LabelMap) -> Result<(), Error> {
    let voxels = label.voxels().reversed_axes();
    let written =
        write(path, label.geometry(), 1, label.as_slice().len(), |options| options.write_nifti(&voxels));
    written.map_err(|fault| Error::new("write label", path, fault))
}

/// zlib's default level. Part of the bytes, so it is fixed.
const LEVEL: Compression = Compression::new(6);

/// `bytes` is the size of the voxels.
fn write(
    path: &Path,
    geometry: &Geometry,
    channels: usize,
    bytes: usize,
    encode: impl FnOnce(WriterOptions) -> nifti::Result<()>,
) -> Result<(), Fault> {
    let header = header(geometry, channels)?;
    let compress = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let temporary = Temporary::beside(path, if compress { "nii.gz" } else { "nii" });
    let mut options = WriterOptions::new(&temporary.0).reference_header(&header);
    if compress {
        options = options.compression_level(LEVEL);
    }
    encode(options).map_err(unwrapped)?;
    // Without compression the crate drops the error of its last flush, so a full disk shows in the size alone.
    let (expected, found) = (352 + bytes as u64, std::fs::metadata(&temporary.0)?.len());
    if !compress && found != expected {
        return Err(Fault::Unwritten { expected, found });
    }
    Ok(std::fs::rename(&temporary.0, path)?)
}

/// The system's own error, where it is one.
fn unwrapped(error: nifti::NiftiError) -> Fault {
    match error {
        nifti::NiftiError::Io(error) => Fault::Io(error),
        other => Fault::Codec(other),
    }
}

/// A file beside its destination, removed unless it was renamed.
///
/// The crate changes the names that it is given (`a.b.nii` becomes `a.nii`), so it gets one that it leaves alone.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path, extension: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(path.with_file_name(format!(".writing-{}-{count}.{extension}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone when it was renamed or never made.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// All that the crate does not take from the voxels.
fn header(geometry: &Geometry, channels: usize) -> Result<NiftiHeader, Fault> {
    let [z, y, x] = geometry.shape.0;
    // The crate would wrap longer axes around; other readers take the field as signed.
    if let Some(&length) = [x, y, z, channels].iter().find(|&&length| i16::try_from(length).is_err()) {
        return Err(Fault::AxisTooLong(length));
    }
    if let Some(defect) = geometry.affine.defect() {
        return Err(Fault::Affine { source_name: "volume's", defect });
    }
    let qform = quaternion(&geometry.affine);
    let [sz, sy, sx] = geometry.spacing_mm().map(|v| v as f32);
    let qfac = qform.as_ref().map_or(1.0, |qform| qform.qfac);
    let [b, c, d] = qform.as_ref().map_or([0.0; 3], |qform| qform.bcd);
    let [quatern_x, quatern_y, quatern_z] = geometry.affine.origin_mm().map(|v| v as f32);
    let row = |k: usize| geometry.affine.0[k].map(|v| v as f32);
    Ok(NiftiHeader {
        // `regular`, as every writer sets it.
        regular: b'r',
        pixdim: [qfac, sx, sy, sz, 1.0, 1.0, 1.0, 1.0],
        // Millimetres, seconds.
        xyzt_units: 2 | 8,
        // 2 = aligned to the coordinates of another file: the volume this one was derived from.
        qform_code: if qform.is_some() { 2 } else { 0 },
        sform_code: 2,
        quatern_b: b,
        quatern_c: c,
        quatern_d: d,
        quatern_x,
        quatern_y,
        quatern_z,
        srow_x: row(0),
        srow_y: row(1),
        srow_z: row(2),
        endianness: Endianness::Little,
        ..NiftiHeader::default()
    })
}
