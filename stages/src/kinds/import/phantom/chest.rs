//! Images with a class, in place of an archive: a chest whose lungs are clear (class 0) or clouded. Of more than two
//! classes each has one cloud more than the one before.

use super::Cohort;
use super::draw::{Draw, Lattice};
use super::likeness::patient_name;
use super::planted::changed;
use super::tones::tone;
use pipe_imaging::{Affine, Geometry, Image};

/// One image of the cohort.
pub(in super::super) struct Chest {
    /// Such as `train_00012`: the official part and the place within it.
    pub(in super::super) id: String,
    pub(in super::super) split: &'static str,
    /// What is said of it.
    pub(in super::super) class: usize,
    /// Whose it is, in a cohort that is like another one; what was planted is nobody else's.
    pub(in super::super) patient: Option<String>,
    /// Number of the case that it shows.
    source: usize,
    shown: Shown,
}

/// What is done to the image of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    AsItIs,
    /// Changed in one of the ways of a near duplicate, by turn.
    Changed(usize),
    CutOff,
    Constant,
}

/// Shares of the parts in twentieths, in the order of the archive.
const PARTS: [(&str, usize); 3] = [("train", 14), ("val", 2), ("test", 4)];
/// Of four cases, those with clouds.
const CLOUDED: usize = 3;

/// All images, part by part; what was planted is the last of the training part.
pub(in super::super) fn list(cohort: &Cohort) -> Vec<Chest> {
    let mut parts: Vec<(&'static str, Vec<usize>)> = PARTS.map(|(split, _)| (split, Vec::new())).into();
    for case in 0..cohort.cases {
        // Every run of twenty cases has its share of each part, so that a small cohort has all of them.
        // The images of a patient are in one part.
        let patient = cohort.like.as_ref().map_or(case, |like| like.template(case).patient);
        let place = (patient * 7) % 20;
        let part = match place {
            place if place < PARTS[0].1 => 0,
            place if place < PARTS[0].1 + PARTS[1].1 => 1,
            _ => 2,
        };
        parts[part].1.push(case);
    }
    let planted = planted(cohort, &parts);
    let chest = |split: &'static str, place: usize, source: usize| Chest {
        id: format!("{split}_{place:05}"),
        split,
        class: class(cohort, source),
        patient: cohort.like.as_ref().map(|like| patient_name(like.template(source))),
        source,
        shown: Shown::AsItIs,
    };
    let mut all = Vec::new();
    for (part, (split, cases)) in parts.into_iter().enumerate() {
        let sound = cases.len();
        all.extend(cases.into_iter().enumerate().map(|(place, source)| chest(split, place, source)));
        if part == 0 {
            all.extend(planted.iter().enumerate().map(|(place, (source, shown, class))| {
                let copied = chest(split, sound + place, *source);
                let patient = copied.patient.as_ref().map(|_| copied.id.clone());
                Chest { class: *class, shown: *shown, patient, ..copied }
            }));
        }
    }
    all
}

/// Case, what is done to its image, and what is said of it; of a case of each part in turn.
fn planted(cohort: &Cohort, parts: &[(&str, Vec<usize>)]) -> Vec<(usize, Shown, usize)> {
    let parts: Vec<&Vec<usize>> =
        parts.iter().map(|(_, cases)| cases).filter(|own| !own.is_empty()).collect();
    let source = |number: usize| {
        let own = parts[number % parts.len()];
        own[number % own.len()]
    };
    let super::Planted { duplicates, near, labels, defects, .. } = cohort.planted;
    let mut planted = Vec::new();
    for _ in 0..duplicates {
        let source = source(planted.len());
        planted.push((source, Shown::AsItIs, class(cohort, source)));
    }
    for turn in 0..near {
        let source = source(planted.len());
        planted.push((source, Shown::Changed(turn), class(cohort, source)));
    }
    for _ in 0..labels {
        let source = source(planted.len());
        planted.push((source, Shown::AsItIs, (class(cohort, source) + 1) % classes(cohort)));
    }
    for turn in 0..defects {
        let source = source(planted.len());
        let shown = if turn % 2 == 0 { Shown::CutOff } else { Shown::Constant };
        planted.push((source, shown, class(cohort, source)));
    }
    planted
}

/// How many classes there are.
fn classes(cohort: &Cohort) -> usize {
    cohort.like.as_ref().map_or(2, |like| like.classes.len())
}

fn class(cohort: &Cohort, case: usize) -> usize {
    match &cohort.like {
        Some(like) => like.template(case).class.unwrap_or(0),
        None => usize::from(Draw::new(cohort.seed, "class", case).below(4) < CLOUDED),
    }
}

impl Chest {
    /// Whether its file should end early.
    pub(in super::super) fn is_cut_off(&self) -> bool {
        self.shown == Shown::CutOff
    }
}

/// The image, with one channel or as many as the case that it is like.
pub(in super::super) fn image(cohort: &Cohort, chest: &Chest) -> Image {
    let image = match &cohort.like {
        None => {
            let geometry = Geometry::new(cohort.shape, Affine::of_picture([1.0; 3]));
            let values = pixels(cohort, chest).into_iter().map(f32::from).collect();
            Image::from_vec(values, 1, geometry).expect("one value a pixel")
        }
        Some(like) => {
            let template = like.template(chest.source);
            let of_channel = |channel: usize| brightness(cohort, template.shape, chest.source, channel);
            let toned = template
                .channels
                .iter()
                .enumerate()
                .flat_map(|(channel, tones)| tone(&of_channel(channel), tones, template.whole));
            let geometry = Geometry::new(template.shape, template.affine);
            Image::from_vec(toned.collect(), template.channels.len(), geometry).expect("one value a pixel")
        }
    };
    match chest.shown {
        Shown::AsItIs | Shown::CutOff => image,
        Shown::Constant => {
            let mut image = image;
            image.as_mut_slice().fill(100.0);
            image
        }
        Shown::Changed(turn) => {
            let whole = image.as_slice().iter().all(|value| value.fract() == 0.0);
            let most = image.as_slice().iter().copied().fold(0.0, f32::max);
            let mut image = changed(cohort, turn, &image, None).0;
            if whole {
                image.as_mut_slice().iter_mut().for_each(|value| *value = value.round().clamp(0.0, most));
            }
            image
        }
    }
}

/// The pixels of a case that is like no other, row by row.
fn pixels(cohort: &Cohort, chest: &Chest) -> Vec<u8> {
    let mut own = Draw::new(cohort.seed, "chest", chest.source);
    let anatomy = Anatomy::draw(cohort, chest.source, &mut own);
    let surface = Surface::draw(cohort.shape, &mut own);
    let (exposure, contrast) = (18.0 * own.signed(), 150.0 + 35.0 * own.signed());
    let value = |level: f64| (60.0 + exposure + contrast * level).clamp(0.0, 255.0) as u8;
    surface.levels(&anatomy, &mut own).into_iter().map(value).collect()
}

/// How bright each pixel of a channel is among the others.
fn brightness(cohort: &Cohort, shape: [usize; 3], case: usize, channel: usize) -> Vec<f64> {
    let anatomy = Anatomy::draw(cohort, case, &mut Draw::new(cohort.seed, "chest", case));
    let mut own = Draw::new(cohort.seed, &format!("chest channel {channel}"), case);
    Surface::draw(shape, &mut own).levels(&anatomy, &mut own)
}

/// What all channels of a case show.
struct Anatomy {
    body: Thorax,
    clouds: Clouds,
}

impl Anatomy {
    fn draw(cohort: &Cohort, case: usize, own: &mut Draw) -> Self {
        let body = Thorax::draw(own);
        let clouds = clouds(cohort, case, &body, own);
        Self { body, clouds }
    }
}

/// What is a channel's own.
struct Surface {
    shape: [usize; 3],
    texture: Lattice,
    bias: Lattice,
}

impl Surface {
    fn draw(shape: [usize; 3], own: &mut Draw) -> Self {
        let [_, height, width] = shape;
        let texture = Lattice::draw(shape, (height.min(width) / 5).max(1), own);
        Self { shape, texture, bias: Lattice::draw(shape, height.max(width), own) }
    }

    /// Row by row, with noise.
    fn levels(&self, Anatomy { body, clouds }: &Anatomy, own: &mut Draw) -> Vec<f64> {
        let [_, height, width] = self.shape;
        let mut levels = Vec::with_capacity(height * width);
        for y in 0..height {
            for x in 0..width {
                let (v, u) = (signed_share(y, height), signed_share(x, width));
                let at = [0.0, y as f64, x as f64];
                let level =
                    body.at(v, u, clouds.at(v, u)) + 0.05 * self.texture.at(at) + 0.08 * self.bias.at(at);
                levels.push(level + 0.02 * own.normal());
            }
        }
        levels
    }
}

fn clouds(cohort: &Cohort, case: usize, body: &Thorax, own: &mut Draw) -> Clouds {
    match (class(cohort, case), classes(cohort)) {
        (0, _) => Clouds(Vec::new()),
        (_, ..=2) => {
            let count = 1 + own.below(3);
            Clouds::draw(count, body, own)
        }
        (class, _) => Clouds::draw(class, body, own),
    }
}

/// From -1 at the first to 1 at the last place.
fn signed_share(place: usize, size: usize) -> f64 {
    2.0 * place as f64 / (size.max(2) - 1) as f64 - 1.0
}

/// 1 within an ellipse, 0 outside, with a soft edge.
fn ellipse([v, u]: [f64; 2], centre: [f64; 2], half: [f64; 2]) -> f64 {
    let (dv, du) = ((v - centre[0]) / half[0], (u - centre[1]) / half[1]);
    let level = (dv * dv + du * du).sqrt();
    (0.5 + 2.5 * (1.0 - level)).clamp(0.0, 1.0)
}

/// Down and right are positive, from -1 to 1.
struct Thorax {
    shift: [f64; 2],
    lungs: [([f64; 2], [f64; 2]); 2],
    /// How much darker a lung is.
    air: f64,
    heart: ([f64; 2], [f64; 2]),
    /// Place of the first rib, and from one to the next.
    ribs: [f64; 2],
}

impl Thorax {
    fn draw(own: &mut Draw) -> Self {
        let mut lung = |side: f64| {
            let centre = [-0.1 + 0.06 * own.signed(), side * (0.46 + 0.04 * own.signed())];
            (centre, [0.62 + 0.08 * own.signed(), 0.3 + 0.05 * own.signed()])
        };
        let lungs = [lung(-1.0), lung(1.0)];
        Self {
            shift: [0.08 * own.signed(), 0.08 * own.signed()],
            lungs,
            air: 0.45 + 0.12 * own.signed(),
            heart: (
                [0.35 + 0.05 * own.signed(), 0.12 + 0.06 * own.signed()],
                [0.32 + 0.06 * own.signed(), 0.28 + 0.06 * own.signed()],
            ),
            ribs: [own.uniform(), 0.22 + 0.03 * own.signed()],
        }
    }

    /// Brightness from about 0 to 1, where `cloud` fills so much of the air.
    fn at(&self, v: f64, u: f64, cloud: f64) -> f64 {
        let (v, u) = (v - self.shift[0], u - self.shift[1]);
        let trunk = ellipse([v, u], [0.3, 0.0], [1.6, 1.02]);
        let spine = (1.0 - (u / 0.16) * (u / 0.16)).max(0.0);
        let heart = ellipse([v, u], self.heart.0, self.heart.1);
        let air = self.lungs.iter().map(|(centre, half)| ellipse([v, u], *centre, *half)).fold(0.0, f64::max);
        let air = air * (1.0 - heart) * (1.0 - spine);
        // Ribs fall off to the sides.
        let rib = (v + 0.25 * u * u) / self.ribs[1] + self.ribs[0];
        let rib = 2.0 * (rib - rib.floor() - 0.5).abs();
        0.15 + trunk * (0.5 + 0.15 * spine + 0.12 * heart) - self.air * air * (1.0 - cloud)
            + 0.06 * rib * trunk
    }
}

/// Places, sizes and densities of what fills the air.
struct Clouds(Vec<([f64; 2], [f64; 2], f64)>);

impl Clouds {
    fn draw(count: usize, body: &Thorax, own: &mut Draw) -> Self {
        let cloud = |own: &mut Draw| {
            let (centre, half) = body.lungs[own.below(2)];
            let place = [centre[0] + 0.6 * half[0] * own.signed(), centre[1] + 0.5 * half[1] * own.signed()];
            let place = [place[0] + body.shift[0], place[1] + body.shift[1]];
            (place, [0.2 + 0.12 * own.uniform(), 0.16 + 0.1 * own.uniform()], 0.4 + 0.5 * own.uniform())
        };
        Self((0..count).map(|_| cloud(own)).collect())
    }

    fn at(&self, v: f64, u: f64) -> f64 {
        let one =
            |(centre, half, density): &([f64; 2], [f64; 2], f64)| density * ellipse([v, u], *centre, *half);
        self.0.iter().map(one).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests;
