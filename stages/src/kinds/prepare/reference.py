"""Prints the reference values in tests.rs, made with nibabel, SciPy and NumPy alone.

Usage: reference.py [FOLDER OF Task04_Hippocampus]
"""
import sys

import nibabel
import numpy as np
import scipy
from scipy.ndimage import zoom

SPACING_MM = np.array([1.5, 1.0, 0.8])  # z, y, x


def prepare(image, label):
    """Turns to RAS, resamples to SPACING_MM, brings to mean 0 and standard deviation 1."""
    image, label = nibabel.as_closest_canonical(image), nibabel.as_closest_canonical(label)
    voxels = np.asarray(image.get_fdata()).T
    labels = np.rint(np.asarray(label.get_fdata())).astype(int).T
    extent = np.array(voxels.shape) * np.array(image.header.get_zooms(), float)[::-1]
    factors = np.rint(extent / SPACING_MM) / voxels.shape

    def resample(values):
        return zoom(values.astype(float), factors, order=1, grid_mode=True, mode="nearest")

    resampled = resample(voxels)
    values = np.unique(labels)
    # Rounded, so that weights which are equal but for the last bit are a tie, which the lower label wins.
    winner = values[np.argmax([resample(labels == value).round(6) for value in values], axis=0)]
    return (resampled - resampled.mean()) / resampled.std(), winner


def show(name, image, label):
    voxels, labels = prepare(image, label)
    corner = [voxels[0, 0, 0], voxels[tuple(n // 2 for n in voxels.shape)], voxels[-1, -1, -1]]
    print(name, voxels.shape, [round(float(v), 6) for v in corner], "sum of magnitudes %.5f" % np.abs(voxels).sum())
    centre = [round(float(c), 6) for c in np.array(np.nonzero(labels)).mean(axis=1)]
    counts = {int(value): int((labels == value).sum()) for value in np.unique(labels)}
    print("   labels", counts, "centre", centre)


def turned():
    """The case of cohort.rs: grid `turned([9, 8, 7], [1.0, 2.0, 0.5])`, `image(grid, 5)` and a slab of label 7."""
    shape = (9, 8, 7)
    affine = np.array([[0, 0, 1.0, -31], [-2.0, 0, 0, 17], [0, -0.5, 0, 5], [0, 0, 0, 1]])
    index = np.arange(np.prod(shape), dtype=np.uint64)
    values = (((index + (5 << 16)) * 2654435761) % 2**32 >> 22).astype(np.float32) + 1
    labels = np.zeros(shape, np.uint8)
    labels[2:6, 1:5, 2:4] = 7
    labels[6:8, 3:8, 3:7] = 1
    return (nibabel.Nifti1Image(array.reshape(shape).T, affine) for array in (values, labels))


print("nibabel", nibabel.__version__, "SciPy", scipy.__version__, "NumPy", np.__version__)
show("turned", *turned())
for case in ["hippocampus_006", "hippocampus_243"] if sys.argv[1:] else []:
    files = (f"{sys.argv[1]}/{folder}/{case}.nii.gz" for folder in ["imagesTr", "labelsTr"])
    show(case, *(nibabel.load(file) for file in files))
