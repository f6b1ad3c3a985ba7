//! Small NIfTI files, as another program would write them.

/// A NIfTI-1 file of `uint8` voxels, x fastest: number of voxels and their size in mm along x, y, z.
pub(crate) fn nifti(shape: [usize; 3], spacing_mm: [f32; 3], voxels: &[u8]) -> Vec<u8> {
    assert_eq!(shape.iter().product::<usize>(), voxels.len());
    let mut file = vec![0; 352];
    let mut put = |at: usize, field: &[u8]| file[at..at + field.len()].copy_from_slice(field);
    put(0, &348_i32.to_le_bytes());
    let [x, y, z] = shape.map(|size| size as i16);
    for (at, extent) in [3, x, y, z, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * at, &extent.to_le_bytes());
    }
    put(70, &2_i16.to_le_bytes());
    put(72, &8_i16.to_le_bytes());
    let [dx, dy, dz] = spacing_mm;
    for (at, size) in [1.0, dx, dy, dz, 1.0, 1.0, 1.0, 1.0].into_iter().enumerate() {
        put(76 + 4 * at, &f32::to_le_bytes(size));
    }
    put(108, &352_f32.to_le_bytes());
    // Rows of the transform to patient space.
    put(254, &1_i16.to_le_bytes());
    for (row, size) in spacing_mm.into_iter().enumerate() {
        put(280 + 20 * row, &size.to_le_bytes());
    }
    put(344, b"n+1\0");
    file.extend(voxels);
    file
}
