//! Random damage to files of every format: never a panic, and never more memory than the limit on voxels allows.
//!
//! `PIPE_MUTANTS=10000` sets how many files of each format are tried; a few by default.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use pipe_imaging::{dicom, itk, nifti, npz, raster};

use self::noise::Noise;

#[path = "imaging/noise.rs"]
mod noise;

/// The largest volume that is asked for here, in voxels × channels.
const MAX_VOXELS: usize = 1 << 18;

/// What reading may hold at a time: 8 bytes a voxel as stored, 8 as a number, 4 as `f32`, and half as much again for
/// buffers that grow and for decoders.
const BOUND: usize = 32 * MAX_VOXELS;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts the bytes that each thread holds.
struct Counting;

fn count(bytes: isize) {
    // A thread that is ending has no counters left.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that `work` held at most beyond what was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

fn rounds() -> usize {
    std::env::var("PIPE_MUTANTS").map_or(2000, |text| text.parse().expect("PIPE_MUTANTS is a number"))
}

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imaging").join(folder)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Values that mean something special in some field.
const NASTY: [&[u8]; 12] = [
    &[0; 4],
    &[0xff; 4],
    &[0x80, 0],
    &[0, 0x80],
    &[0x7f, 0xff],
    &[0xff, 0x7f],
    &[0, 0, 0xc0, 0x7f],
    &[0, 0, 0x80, 0x7f],
    &[0, 0, 0x80, 0xff],
    &[1],
    &[7, 0],
    &[0, 7],
];

/// One to five changes, most of them in the first `header` bytes.
fn mutate(bytes: &mut Vec<u8>, header: usize, noise: &mut Noise) {
    for _ in 0..=noise.below(4) {
        match noise.below(8) {
            0 => bytes.truncate(noise.below(bytes.len()) + 1),
            1 | 2 => {
                let at = noise.below(bytes.len());
                bytes[at] = noise.next() as u8;
            }
            3 => {
                let at = noise.below(bytes.len().min(header));
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&(noise.signed() * 1e6).to_le_bytes()[..end - at]);
            }
            _ => {
                let value = NASTY[noise.below(NASTY.len())];
                let at = noise.below(bytes.len().min(header));
                let end = bytes.len().min(at + value.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
        }
    }
}

#[test]
fn damaged_nifti_files_are_read_or_refused_within_bounds() {
    let mut noise = Noise(20_261_122);
    let mut seeds: Vec<Vec<u8>> =
        ["float32_plain.nii", "float64_big_endian.nii", "int16_scaled.nii.gz", "int64_extension.nii.gz"]
            .map(|name| std::fs::read(data("reference").join(name)).expect(name))
            .into();
    for name in ["two_sform.nii.gz", "two_big_endian.nii.gz"] {
        seeds.push(std::fs::read(data("formats").join(name)).expect(name));
    }
    // A bomb: 64 MiB of zeros in 64 KiB.
    let mut bomb = seeds[0].clone();
    bomb.resize(1 << 26, 0);
    seeds.push(gzip(&bomb));
    let folder = tempfile::tempdir().expect("temporary directory");
    let (mut read, mut refused) = (0, 0);
    for round in 0..rounds() {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, 540, &mut noise);
        if noise.below(3) == 0 {
            bytes = gzip(&bytes);
        }
        let (image, held) = peak_of(|| nifti::decode_image(&bytes, MAX_VOXELS));
        assert!(held <= BOUND, "round {round}: an image took {held} bytes, the bound is {BOUND}");
        let (label, held) = peak_of(|| nifti::decode_label(&bytes, MAX_VOXELS));
        assert!(held <= BOUND, "round {round}: a label map took {held} bytes, the bound is {BOUND}");
        let header = nifti::decode_header(&bytes);
        assert!(header.is_ok() || (image.is_err() && label.is_err()), "round {round}");
        let Ok(image) = image else {
            refused += 1;
            continue;
        };
        read += 1;
        // What can be read can be described, written and read again.
        let _ = image.geometry().orientation();
        let path = folder.path().join("again.nii");
        match nifti::write_image(&path, &image) {
            Ok(()) => assert_eq!(nifti::read_image(&path).expect("own file").shape(), image.shape()),
            Err(error) => assert!(matches!(error.fault(), nifti::Fault::AxisTooLong(_)), "{error}"),
        }
    }
    assert!(read > rounds() / 10 && refused > rounds() / 10, "{read} read, {refused} refused: one side only");
}

#[test]
fn damaged_dicom_files_are_read_or_refused_within_bounds() {
    let mut noise = Noise(20_261_123);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(data("formats"))
        .expect("formats")
        .map(|entry| entry.expect("formats").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let seeds: Vec<Vec<u8>> = folders
        .iter()
        .map(|folder| dicom::files_in(folder).expect("files").remove(0))
        .map(|file| std::fs::read(file).expect("reference"))
        .collect();
    assert!(seeds.len() > 8, "one of each transfer syntax, found {}", seeds.len());
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("mutated.dcm");
    let (mut read, mut refused) = (0, 0);
    for round in 0..rounds() {
        let mut bytes = seeds[round % seeds.len()].clone();
        let length = bytes.len();
        mutate(&mut bytes, length, &mut noise);
        std::fs::write(&path, &bytes).expect("temporary file");
        let (volume, held) = peak_of(|| {
            let scan = dicom::scan([path.clone()]);
            scan.series.first().map(|series| series.stack(MAX_VOXELS).and_then(|stack| stack.read()))
        });
        assert!(held <= BOUND, "round {round}: a series took {held} bytes, the bound is {BOUND}");
        if matches!(volume, Some(Ok(_))) { read += 1 } else { refused += 1 }
    }
    assert!(read > rounds() / 10 && refused > rounds() / 10, "{read} read, {refused} refused: one side only");
}

/// Files of the folder `formats`, by name.
fn formats(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| std::fs::read(data("formats").join(name)).expect(name)).collect()
}

/// Damages each seed in turn; `read` says whether something came out. Most changes are in the first `header` bytes.
fn check(seed: u64, seeds: &[Vec<u8>], header: usize, read: impl Fn(&[u8]) -> bool) {
    let mut noise = Noise(seed);
    let (mut sound, mut refused) = (0, 0);
    for round in 0..rounds() {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, header, &mut noise);
        let (found, held) = peak_of(|| read(&bytes));
        assert!(held <= BOUND, "round {round}: reading took {held} bytes, the bound is {BOUND}");
        if found { sound += 1 } else { refused += 1 }
    }
    let some = rounds() / 20;
    assert!(sound > some && refused > some, "{sound} read, {refused} refused: one side only");
}

/// What a deflated MetaImage of 4×4×4 bytes is followed by 64 MiB of zeros in.
fn deflated_bomb() -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&vec![0; 1 << 26]).expect("in memory");
    let packed = packed.finish().expect("in memory");
    let header = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\nCompressedDataSize = {}\nDimSize = 4 4 4\n\
         ElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
        packed.len()
    );
    [header.as_bytes(), &packed].concat()
}

#[test]
fn damaged_metaimage_files_are_read_or_refused_within_bounds() {
    let mut seeds =
        formats(&["oblique.mha", "deflated.mha", "channels.mha", "big_endian.mha", "float64.mha"]);
    seeds.push(deflated_bomb());
    check(20_261_124, &seeds, 400, |bytes| {
        itk::decode_image(bytes, itk::Kind::MetaImage, MAX_VOXELS).is_ok()
    });
}

#[test]
fn damaged_nrrd_files_are_read_or_refused_within_bounds() {
    let seeds = formats(&["oblique.nrrd", "deflated.nrrd", "channels.nrrd", "float64.nrrd", "int64.nrrd"]);
    check(20_261_125, &seeds, 400, |bytes| itk::decode_image(bytes, itk::Kind::Nrrd, MAX_VOXELS).is_ok());
}

#[test]
fn damaged_pictures_are_read_or_refused_within_bounds() {
    let mut seeds = formats(&[
        "grey_8.png",
        "grey_16.png",
        "palette.png",
        "colour.png",
        "grey.jpg",
        "grey_8.tif",
        "grey_16.tif",
    ]);
    // A bomb: a picture of 60,000×60,000 pixels that is all background.
    let mut huge = seeds[0].clone();
    huge[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    seeds.push(huge);
    check(20_261_126, &seeds, 400, |bytes| raster::decode_image(bytes, MAX_VOXELS).is_ok());
}

#[test]
fn damaged_archives_are_read_or_refused_within_bounds() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("mutated.npz");
    let seeds = formats(&["medmnist.npz", "other.npz"]);
    let length = seeds[0].len();
    check(20_261_127, &seeds, length, |bytes| {
        std::fs::write(&path, bytes).expect("temporary file");
        let Ok(mut archive) = npz::Archive::open(&path, MAX_VOXELS) else { return false };
        let splits = archive.splits.clone();
        splits.iter().all(|split| archive.for_each_image(split, |_, _| Ok::<_, npz::Error>(())).is_ok())
    });
}
