//! Slices in order on one line at one distance, the grid they form, and their voxels.

use super::fault::{Error, Fault};
use super::{Note, Series, Slice};
use crate::affine::Affine;
use crate::stored::Datatype;
use crate::volume::{Geometry, Image, Shape};

/// A volume that can be read.
#[derive(Debug, Clone)]
pub struct Stack {
    pub geometry: Geometry,
    pub notes: Vec<Note>,
    /// From the first to the last along the normal.
    pub slices: Vec<Slice>,
}

/// Positions closer than this are one place; writers round to a micrometre or less.
const SAME_PLACE_MM: f64 = 1e-3;
/// Distances that differ by less are equal; positions carry a few digits only.
const EVEN: f64 = 0.01;
/// Distances that differ by less make a volume with a note.
const NEARLY_EVEN: f64 = 0.05;
/// How far an orientation may be from unit vectors at right angles.
const RIGHT_ANGLE: f64 = 1e-3;

pub(super) fn stack(series: &Series, max_voxels: usize) -> Result<Stack, Fault> {
    let first = series.slices.first().expect("a series has a slice");
    if let Some(other) = series.slices.iter().find(|s| s.facts.patient_id != first.facts.patient_id) {
        let [first, second] = [first, other].map(|slice| slice.facts.patient_id.clone());
        return Err(Fault::Patients { first, second });
    }
    let mut notes = Vec::new();
    if series.siblings > 1 {
        notes.push(Note::Mixed { volumes: series.siblings });
    }
    if first.inverted {
        notes.push(Note::Inverted);
    }
    let spacing_mm = first.spacing_mm.unwrap_or_else(|| {
        notes.push(Note::NoSpacing);
        [1.0; 2]
    });
    let (slices, affine) =
        match first.orientation.filter(|_| series.slices.iter().all(|s| s.position_mm.is_some())) {
            Some(orientation) => placed(&series.slices, orientation, spacing_mm, &mut notes)?,
            None => unplaced(&series.slices, spacing_mm, &mut notes)?,
        };
    if let Some(defect) = affine.defect() {
        return Err(Fault::Affine(defect));
    }
    let shape = Shape([slices.len(), usize::from(first.rows), usize::from(first.columns)]);
    match shape.voxels() {
        Some(voxels) if voxels <= max_voxels => {}
        voxels => {
            let voxels = voxels.map_or(u128::MAX, |voxels| voxels as u128);
            return Err(Fault::TooLarge { voxels, limit: max_voxels });
        }
    }
    Ok(Stack { geometry: Geometry { shape, affine }, notes, slices })
}

/// A single image that does not say where it lies, such as a radiograph.
fn unplaced(
    slices: &[Slice],
    spacing_mm: [f64; 2],
    notes: &mut Vec<Note>,
) -> Result<(Vec<Slice>, Affine), Fault> {
    if slices.len() > 1 {
        let lost = |slice: &&Slice| slice.position_mm.is_none() || slice.orientation.is_none();
        let file = slices.iter().find(lost).unwrap_or(&slices[0]).name();
        return Err(Fault::Unplaced { file, slices: slices.len() });
    }
    notes.push(Note::NoPosition);
    let thickness_mm = slices[0].thickness_mm.unwrap_or(1.0);
    Ok((slices.to_vec(), Affine::of_picture([thickness_mm, spacing_mm[0], spacing_mm[1]])))
}

/// A slice with its distance along the normal.
struct Placed<'a> {
    slice: &'a Slice,
    position: [f64; 3],
    depth: f64,
}

fn placed(
    slices: &[Slice],
    orientation: [f64; 6],
    [row_spacing, column_spacing]: [f64; 2],
    notes: &mut Vec<Note>,
) -> Result<(Vec<Slice>, Affine), Fault> {
    let [ax, ay, az, bx, by, bz] = orientation;
    let (along_row, along_column) = ([ax, ay, az], [bx, by, bz]);
    let is_unit = |v: [f64; 3]| (dot(v, v) - 1.0).abs() < 2.0 * RIGHT_ANGLE;
    if !is_unit(along_row) || !is_unit(along_column) || dot(along_row, along_column).abs() > RIGHT_ANGLE {
        return Err(Fault::Orientation(orientation));
    }
    let normal = [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx];
    let mut order: Vec<Placed> = slices
        .iter()
        .filter_map(|slice| {
            slice.position_mm.map(|position| Placed { slice, position, depth: dot(position, normal) })
        })
        .collect();
    order.sort_by(|a, b| a.depth.total_cmp(&b.depth).then_with(|| a.slice.path.cmp(&b.slice.path)));
    let order = without_duplicates(order, notes)?;
    let step_mm = if order.len() > 1 {
        even_distance(&order, notes)?
    } else {
        order[0].slice.thickness_mm.unwrap_or_else(|| {
            notes.push(Note::NoThickness);
            1.0
        })
    };
    on_one_line(&order, normal, row_spacing.min(column_spacing))?;
    let scaled = |v: [f64; 3], by: f64| to_ras(v.map(|v| v * by));
    let steps =
        [scaled(along_row, column_spacing), scaled(along_column, row_spacing), scaled(normal, step_mm)];
    let affine = Affine::from_columns(steps, to_ras(order[0].position));
    Ok((order.into_iter().map(|placed| placed.slice.clone()).collect(), affine))
}

/// Of slices at one place with the same pixels the first by name stays; other pixels there are an error.
fn without_duplicates<'a>(order: Vec<Placed<'a>>, notes: &mut Vec<Note>) -> Result<Vec<Placed<'a>>, Fault> {
    let mut kept: Vec<Placed> = Vec::with_capacity(order.len());
    for placed in order {
        let Some(last) = kept.last().filter(|last| placed.depth - last.depth < SAME_PLACE_MM) else {
            kept.push(placed);
            continue;
        };
        let (first, second) = (last.slice.name(), placed.slice.name());
        let same_instance = last.slice.instance_uid == placed.slice.instance_uid;
        let values = |slice: &Slice| {
            let mut values = Vec::new();
            slice.append_values(&slice.cells()?, &mut values);
            Ok::<_, Fault>(values)
        };
        if !same_instance && distance(last.position, placed.position) > SAME_PLACE_MM {
            return Err(Fault::SamePlace { first, second });
        }
        if values(last.slice)? != values(placed.slice)? {
            return Err(Fault::SamePlace { first, second });
        }
        notes.push(Note::Duplicate { kept: first, dropped: second });
    }
    Ok(kept)
}

/// The mean distance of neighbours, which must be (nearly) the same for all.
fn even_distance(order: &[Placed], notes: &mut Vec<Note>) -> Result<f64, Fault> {
    let gaps: Vec<f64> = order.windows(2).map(|pair| pair[1].depth - pair[0].depth).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    // The lower one of two, so that of 1 and 2 mm the latter is the gap.
    let spacing_mm = sorted[(sorted.len() - 1) / 2];
    let (least_mm, most_mm) = (sorted[0], sorted[sorted.len() - 1]);
    let spread = (most_mm - least_mm) / spacing_mm;
    let whole = order[order.len() - 1].depth - order[0].depth;
    let mean = whole / gaps.len() as f64;
    if spread <= EVEN {
        return Ok(mean);
    }
    if spread <= NEARLY_EVEN {
        notes.push(Note::NearlyEven { least_mm, most_mm });
        return Ok(mean);
    }
    let hole = gaps.iter().position(|gap| gap / spacing_mm > 1.5);
    match hole {
        Some(at)
            if gaps.iter().all(|gap| (gap / spacing_mm - (gap / spacing_mm).round()).abs() < NEARLY_EVEN) =>
        {
            Err(Fault::Gap {
                before: order[at].slice.name(),
                after: order[at + 1].slice.name(),
                missing: (gaps[at] / spacing_mm).round() as usize - 1,
                gap_mm: gaps[at],
                spacing_mm,
            })
        }
        _ => Err(Fault::Uneven { least_mm, most_mm }),
    }
}

/// Slices may lie beside the normal through the first by less than half a pixel.
fn on_one_line(order: &[Placed], normal: [f64; 3], pixel_mm: f64) -> Result<(), Fault> {
    let (first, last) = (&order[0], &order[order.len() - 1]);
    let beside = |placed: &Placed| {
        let depth = placed.depth - first.depth;
        [0, 1, 2].map(|k| placed.position[k] - first.position[k] - depth * normal[k])
    };
    let whole = beside(last);
    let drift_mm = length(whole);
    // Off the straight line from first to last: not even a tilt.
    for placed in order {
        let share = if last.depth > first.depth {
            (placed.depth - first.depth) / (last.depth - first.depth)
        } else {
            0.0
        };
        let here = beside(placed);
        let distance_mm = length([0, 1, 2].map(|k| here[k] - share * whole[k]));
        if distance_mm > pixel_mm / 2.0 {
            return Err(Fault::Scattered { file: placed.slice.name(), distance_mm });
        }
    }
    if drift_mm > pixel_mm / 2.0 {
        let degrees = (drift_mm / (last.depth - first.depth)).atan().to_degrees();
        return Err(Fault::Tilt { drift_mm, degrees });
    }
    Ok(())
}

impl Stack {
    /// The type of the stored values.
    pub fn datatype(&self) -> Datatype {
        self.slices.first().expect("a stack has a slice").datatype()
    }

    /// Reads the voxels as `[1, z, y, x]`, rescaled slice by slice. Holds the volume and one slice.
    pub fn read(&self) -> Result<Image, Error> {
        let voxels: usize = self.geometry.shape.0.iter().product();
        let mut values: Vec<f32> = Vec::new();
        for slice in &self.slices {
            let fail = |fault: Fault| Error::new("read the pixels of", &slice.path, fault);
            let cells = slice.cells().map_err(fail)?;
            // Only once pixels are really there.
            if values.capacity() == 0 {
                let bytes = voxels.saturating_mul(size_of::<f32>());
                values.try_reserve_exact(voxels).map_err(|_| fail(Fault::Memory { bytes }))?;
            }
            slice.append_values(&cells, &mut values);
        }
        Ok(Image::from_vec(values, 1, self.geometry).expect("every slice has the pixels of the first"))
    }
}

/// LPS to RAS: x and y change their sign. Not `-v`, which would write -0.0.
fn to_ras([x, y, z]: [f64; 3]) -> [f64; 3] {
    [0.0 - x, 0.0 - y, z]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn length(v: [f64; 3]) -> f64 {
    dot(v, v).sqrt()
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    length([0, 1, 2].map(|k| a[k] - b[k]))
}
