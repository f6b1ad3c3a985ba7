//! Content digests of voxels: the same values give the same digest, however they are stored.

use std::fmt;

use crate::volume::{Image, LabelMap};

/// The BLAKE3 digest of a volume's shape and values. Displays as 64 hexadecimal digits.
///
/// # What is hashed
///
/// `pipe voxels 1\n`, then channels, z, y, x as little-endian `u64`, then every value as little-endian `f32` in C
/// order (x fastest), with −0 as 0 and every NaN as one NaN. Compression, byte order, voxel type, scaling, affine and
/// name do not enter; a label map hashes as an image of one channel. A flipped or shifted copy has another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoxelDigest(pub [u8; 32]);

impl fmt::Display for VoxelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// Digests an image.
pub fn image_digest(image: &Image) -> VoxelDigest {
    digest(image.channels(), image.shape().0, image.as_slice().iter().copied())
}

/// Digests a label map.
pub fn label_digest(label: &LabelMap) -> VoxelDigest {
    digest(1, label.shape().0, label.as_slice().iter().copied().map(f32::from))
}

fn digest(channels: usize, shape: [usize; 3], mut values: impl Iterator<Item = f32>) -> VoxelDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"pipe voxels 1\n");
    for length in [channels, shape[0], shape[1], shape[2]] {
        hasher.update(&(length as u64).to_le_bytes());
    }
    let mut buffer = [0_u8; 1 << 14];
    loop {
        let mut filled = 0;
        for (bytes, value) in buffer.chunks_exact_mut(4).zip(&mut values) {
            bytes.copy_from_slice(&canonical(value).to_le_bytes());
            filled += 4;
        }
        hasher.update(&buffer[..filled]);
        if filled < buffer.len() {
            return VoxelDigest(*hasher.finalize().as_bytes());
        }
    }
}

fn canonical(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 } // -0.0 + 0.0 is 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn labels_and_equal_images_share_a_digest_and_minus_zero_is_zero() {
        let geometry = Geometry::with_spacing([1, 2, 2], [1.0; 3]);
        let label = LabelMap::from_vec(vec![0, 1, 2, 255], geometry).expect("four voxels");
        let image = Image::from_vec(vec![-0.0, 1.0, 2.0, 255.0], 1, geometry).expect("four voxels");
        assert_eq!(label_digest(&label), image_digest(&image));
    }

    #[test]
    fn shape_and_value_both_count_and_the_affine_does_not() {
        let flat = Geometry::with_spacing([1, 2, 2], [1.0; 3]);
        let tall = Geometry::with_spacing([2, 2, 1], [1.0; 3]);
        let coarse = Geometry::with_spacing([1, 2, 2], [3.0; 3]);
        let of = |v: [u8; 4], g| label_digest(&LabelMap::from_vec(v.to_vec(), g).expect("four voxels"));
        assert_ne!(of([0, 1, 2, 3], flat), of([0, 1, 2, 3], tall));
        assert_ne!(of([0, 1, 2, 3], flat), of([0, 1, 2, 4], flat));
        assert_eq!(of([0, 1, 2, 3], flat), of([0, 1, 2, 3], coarse));
    }

    #[test]
    fn the_digest_of_a_known_volume_does_not_change() {
        // blake3 (Python package) of b"pipe voxels 1\n" + struct.pack("<4Q", 1, 1, 1, 2) + struct.pack("<2f", 1, 2)
        let geometry = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
        let label = LabelMap::from_vec(vec![1, 2], geometry).expect("two voxels");
        assert_eq!(
            label_digest(&label).to_string(),
            "baf77945a99587aaeaf783a6df52d86370d2a7afaca0083c7a170c8ef6f84e1f"
        );
    }

    #[test]
    fn volumes_longer_than_the_buffer_are_hashed_to_the_end() {
        let n = 3 * (1 << 12) + 5;
        let geometry = Geometry::with_spacing([1, 1, n], [1.0; 3]);
        let mut voxels = vec![0_u8; n];
        let zeros = label_digest(&LabelMap::from_vec(voxels.clone(), geometry).expect("n voxels"));
        voxels[n - 1] = 1;
        assert_ne!(zeros, label_digest(&LabelMap::from_vec(voxels, geometry).expect("n voxels")));
    }
}
