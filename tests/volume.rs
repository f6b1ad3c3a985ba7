//! Small NIfTI and DICOM files, as another program would write them.

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

/// The slices of a DICOM series that holds what [`nifti`] has, voxel by voxel at the same place of the patient, as `uint16`.
/// DICOM counts millimetres to the left and to the back, NIfTI to the right and to the front.
pub(crate) fn dicom([x, y, z]: [usize; 3], spacing_mm: [f32; 3], voxels: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(x * y * z, voxels.len());
    let [dx, dy, dz] = spacing_mm;
    let slice = |k: usize| {
        let number = |value: usize| (value as u16).to_le_bytes().to_vec();
        let pixels = voxels[k * x * y..][..x * y].iter().flat_map(|v| u16::from(*v).to_le_bytes());
        let elements = [
            (0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2.1".to_vec()),
            (0x0008, 0x0018, b"UI", format!("1.2.3.{k}").into_bytes()),
            (0x0008, 0x0060, b"CS", b"MR".to_vec()),
            (0x0010, 0x0020, b"LO", b"somebody".to_vec()),
            (0x0018, 0x0050, b"DS", dz.to_string().into_bytes()),
            (0x0020, 0x000E, b"UI", b"1.2.3".to_vec()),
            (0x0020, 0x0032, b"DS", format!("0\\0\\{}", k as f32 * dz).into_bytes()),
            (0x0020, 0x0037, b"DS", b"-1\\0\\0\\0\\-1\\0".to_vec()),
            (0x0028, 0x0002, b"US", number(1)),
            (0x0028, 0x0010, b"US", number(y)),
            (0x0028, 0x0011, b"US", number(x)),
            (0x0028, 0x0030, b"DS", format!("{dy}\\{dx}").into_bytes()),
            (0x0028, 0x0100, b"US", number(16)),
            (0x0028, 0x0101, b"US", number(16)),
            (0x0028, 0x0102, b"US", number(15)),
            (0x0028, 0x0103, b"US", number(0)),
            (0x7FE0, 0x0010, b"OW", pixels.collect()),
        ];
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        for (group, element, representation, mut value) in elements {
            if value.len() % 2 == 1 {
                value.push(if representation == b"UI" { 0 } else { b' ' });
            }
            file.extend(u16::to_le_bytes(group));
            file.extend(u16::to_le_bytes(element));
            file.extend(representation);
            if representation == b"OW" {
                file.extend([0; 2]);
                file.extend((value.len() as u32).to_le_bytes());
            } else {
                file.extend((value.len() as u16).to_le_bytes());
            }
            file.extend(value);
        }
        file
    };
    (0..z).map(slice).collect()
}
