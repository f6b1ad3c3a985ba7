//! Loads and prepares the cases of a Decathlon folder, for `benches/peers/volumes.py`, which measures this process.
//!
//! `volumes TASK FOLDER CASES [OUT]`, where TASK is `load`, `prepare`, `linear` or `cubic` and CASES may be more than the
//! folder has: it is then gone through again. Prints what it held at most (Linux only). With OUT the last prepared case is written there, to be compared.

use std::error::Error;
use std::path::{Path, PathBuf};

use pipe_imaging::normalize::{self, Region};
use pipe_imaging::open::{self, Options};
use pipe_imaging::resample::Interpolation;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Image, LabelMap, crop, nifti};

#[expect(clippy::print_stdout, reason = "the script reads it")]
fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [task, folder, cases, out @ ..] = &arguments[..] else {
        return Err("use: volumes load|prepare|linear|cubic FOLDER CASES [OUT]".into());
    };
    let names = names(&Path::new(folder).join("imagesTr"))?;
    let mut last = None;
    for name in names.iter().cycle().take(cases.parse()?) {
        let (image, label) = load(Path::new(folder), name)?;
        last = Some(match task.as_str() {
            "load" => (image, label),
            "prepare" => prepare(&image, &label, [1.0; 3], Interpolation::Linear)?,
            "linear" => prepare(&image, &label, [1.2, 0.8, 0.8], Interpolation::Linear)?,
            "cubic" => prepare(&image, &label, [1.2, 0.8, 0.8], Interpolation::Cubic)?,
            other => return Err(format!("`{other}` is no task").into()),
        });
    }
    if let ([out], Some((image, label))) = (out, last) {
        nifti::write_image(&Path::new(out).join("image.nii"), &image)?;
        nifti::write_label(&Path::new(out).join("label.nii"), &label)?;
    }
    println!("{} KiB at most", largest_memory()?);
    Ok(())
}

/// What this process held at most, in KiB. The kernel's own count of a child begins with that of its parent.
fn largest_memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the kernel tells no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The file names of a folder, sorted, without those of Finder.
fn names(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "gz") && !name.starts_with(".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn load(folder: &Path, name: &Path) -> Result<(Image, LabelMap), Box<dyn Error>> {
    let image = open::image(&folder.join("imagesTr").join(name), Options::default())?;
    let label = open::label(&folder.join("labelsTr").join(name), Options::default())?;
    Ok((image.volume, label.volume))
}

/// RAS, the box of what is not 0, voxels of `spacing_mm`, z-score: what the stage `crop` does.
fn prepare(
    image: &Image,
    label: &LabelMap,
    spacing_mm: [f64; 3],
    how: Interpolation,
) -> Result<(Image, LabelMap), Box<dyn Error>> {
    let upright = Transform::new(image.geometry()).interpolated(how).canonical();
    let window = crop::nonzero_window(&upright.apply_image(image)?).ok_or("an image is 0 everywhere")?;
    let transform = upright.crop(window)?.resample_to_spacing(spacing_mm)?;
    let mut prepared = transform.apply_image(image)?;
    normalize::zscore(&mut prepared, Region::All)?;
    Ok((prepared, transform.apply_label(label)?))
}
