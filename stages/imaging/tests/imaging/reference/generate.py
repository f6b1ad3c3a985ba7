"""Makes the reference files beside it with nibabel, NumPy, SciPy and scikit-image. Versions are in reference.json.

    python3 -m venv venv && venv/bin/pip install nibabel scipy scikit-image && venv/bin/python generate.py
"""

import itertools
import json
import pathlib

import nibabel as nib
import numpy as np
import scipy
import skimage
from nibabel.orientations import aff2axcodes
from scipy import ndimage
from skimage.transform import resize

HERE = pathlib.Path(__file__).parent
RNG = np.random.default_rng(20261122)
OUT = {
    "versions": {m.__name__: m.__version__ for m in (nib, np, scipy, skimage)},
    "nifti": [], "orientation": [], "resample": [], "anisotropic": [], "statistics": [],
}


def zyx(array):
    """NIfTI order (x, y, z[, c]) to a C-order list with x fastest."""
    return np.asarray(array).ravel(order="F").tolist()


def rotation():
    q, r = np.linalg.qr(RNG.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


# Files with a quirk each. What nibabel reads back is what is expected.
def case(name, array, affine=None, header=None, patch=(), suffix=".nii.gz", big=False, extensions=()):
    cls = nib.Nifti1Header
    hdr = cls(endianness=">" if big else "<")
    hdr.set_data_dtype(array.dtype)
    image = nib.Nifti1Image(array, affine, hdr, dtype=array.dtype)
    if header:
        header(image.header)
    for e in extensions:
        image.header.extensions.append(e)
    path = HERE / f"{name}{suffix}"
    nib.save(image, path)
    if patch:
        import gzip
        raw = path.read_bytes()
        raw = bytearray(gzip.decompress(raw) if suffix.endswith("gz") else raw)
        for at, value in patch:
            raw[at:at + len(value)] = value
        path.write_bytes(gzip.compress(bytes(raw), mtime=0) if suffix.endswith("gz") else bytes(raw))
    read = nib.load(path)
    OUT["nifti"].append({
        "file": path.name,
        "shape_xyz": list(read.shape),
        "dtype": read.header.get_data_dtype().newbyteorder("=").name,
        "affine": read.affine.tolist(),
        "codes": "".join(aff2axcodes(read.affine)),
        # Scaled in f64 by nibabel, then rounded to f32 once.
        "values": zyx(read.get_fdata(dtype=np.float64).astype(np.float32)),
    })


f4 = lambda *v: np.array(v, "<f4").tobytes()
i2 = lambda *v: np.array(v, "<i2").tobytes()
shape = (4, 3, 2)
floats = RNG.normal(size=shape).astype(np.float32)
ints = RNG.integers(-1000, 1000, shape).astype(np.int16)
oblique = np.eye(4)
oblique[:3, :3] = rotation() * [0.9, 1.1, 3.0]
oblique[:3, 3] = [-12.5, 30.25, 7.75]
left = oblique.copy()
left[:3, 0] *= -1
sheared = oblique.copy()
sheared[:3, 1] += 0.4 * oblique[:3, 2]

case("float32_sform_oblique", floats, oblique)
case("float32_plain", floats, oblique, suffix=".nii")
case("int16_sform_sheared", ints, sheared)
case("int16_qform_left_handed", ints, left, lambda h: (h.set_qform(left, 1), h.set_sform(None, 0)))
case("int16_no_form", ints, None, lambda h: (h.set_zooms((0.5, 2.0, 3.0)), h.set_qform(None, 0), h.set_sform(None, 0)))
case("int16_no_form_zero_zoom", ints, None, lambda h: (h.set_qform(None, 0), h.set_sform(None, 0)), patch=[(80, f4(0.0, 2.0, 3.0))])
case("int16_qfac_repaired", ints, oblique, lambda h: (h.set_qform(oblique, 1), h.set_sform(None, 0)), patch=[(76, f4(0.0))])
case("int16_scaled", ints, np.eye(4), patch=[(112, f4(0.1, -3.7))])
case("uint8_scaled", RNG.integers(0, 255, shape).astype(np.uint8), np.eye(4), patch=[(112, f4(0.0123, 100.0))])
case("int16_slope_nan", ints, np.eye(4), patch=[(112, f4(np.nan, 5.0))])
case("int16_slope_zero", ints, np.eye(4), patch=[(112, f4(0.0, 5.0))])
case("int16_slope_infinite", ints, np.eye(4), patch=[(112, f4(np.inf, 5.0))])
case("int16_big_endian", ints, oblique, big=True)
case("float64_big_endian", RNG.normal(size=shape), oblique, big=True, suffix=".nii")
case("uint16_trailing_unit_axis", RNG.integers(0, 65535, (*shape, 1)).astype(np.uint16), oblique)
case("int32_channels", RNG.integers(-2**31, 2**31, (*shape, 3)).astype(np.int32), oblique)
case("float32_vector_axis_5", RNG.normal(size=(*shape, 1, 2)).astype(np.float32), oblique)
case("uint32_two_dimensional", RNG.integers(0, 2**32, (5, 4)).astype(np.uint32), np.diag([0.7, 0.8, 1, 1]))
case("int64_extension", RNG.integers(-2**60, 2**60, shape).astype(np.int64), oblique,
     extensions=[nib.nifti1.Nifti1Extension("comment", b"a comment of some length, to move the voxels")])
case("uint64_values", RNG.integers(0, 2**63, shape).astype(np.uint64), oblique)
case("int8_values", RNG.integers(-128, 127, shape).astype(np.int8), oblique)
case("label_float32", RNG.integers(0, 3, shape).astype(np.float32), oblique)


# Every axis permutation and flip, straight and oblique: as_closest_canonical.
def orientation(affine):
    data = np.arange(24, dtype=np.uint8).reshape((2, 3, 4), order="F")
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    OUT["orientation"].append({
        "affine": affine.tolist(), "codes": "".join(aff2axcodes(affine)),
        "canonical_affine": canonical.affine.tolist(), "canonical_shape_xyz": list(canonical.shape),
        "canonical_values": zyx(np.asanyarray(canonical.dataobj)),
    })


for permutation in itertools.permutations(range(3)):
    for signs in itertools.product([1, -1], repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, permutation] * signs * [0.75, 1.25, 3.0]
        affine[:3, 3] = [10, -20, 30]
        orientation(affine)
for k in range(40):
    affine = np.eye(4)
    affine[:3, :3] = rotation() * RNG.uniform(0.3, 4, 3) * RNG.choice([-1, 1], 3)
    if k % 2:
        affine[:3, :3] += RNG.normal(size=(3, 3)) * 0.15
    affine[:3, 3] = RNG.normal(size=3) * 50
    orientation(affine)

# Resampling: scikit-image (order 1, as nnU-Net calls it) and SciPy (order 0), on [z, y, x].
for old, new in [((5, 6, 7), (8, 4, 7)), ((3, 1, 9), (7, 5, 2)), ((4, 5, 6), (4, 5, 13)), ((6, 5, 4), (3, 10, 2)), ((2, 3, 2), (1, 1, 1)), ((7, 4, 5), (11, 9, 13))]:
    image = RNG.normal(size=old).astype(np.float32) * 100
    label = RNG.integers(0, 4, old).astype(np.uint8)
    linear = resize(image.astype(np.float64), new, order=1, mode="edge", clip=False, anti_aliasing=False)
    zoomed = ndimage.zoom(image.astype(np.float64), np.array(new) / old, order=1, mode="nearest", grid_mode=True)
    assert zoomed.shape == new and np.allclose(linear, zoomed, atol=1e-9)
    # Order 0 at half-voxel ties depends on rounding inside SciPy: expect the rule itself, floor((o + 1/2) n / m).
    index = [((2 * np.arange(m) + 1) * n) // (2 * m) for n, m in zip(old, new)]
    nearest = label[np.ix_(*index)]
    OUT["resample"].append({
        "from": old, "to": new, "image": image.ravel().tolist(), "linear": linear.ravel().tolist(),
        # Clipped to the range of the image, which is resize's default and what nnU-Net gets.
        "cubic": resize(image.astype(np.float64), new, order=3, mode="edge", anti_aliasing=False).ravel().tolist(),
        "label": label.ravel().tolist(), "nearest": nearest.ravel().tolist(),
        "scipy_nearest": ndimage.zoom(label, np.array(new) / old, order=0, mode="nearest", grid_mode=True).ravel().tolist(),
    })

for n in [1, 2, 5, 24, 100]:
    values = (RNG.gamma(2.0, 300.0, n) * RNG.integers(0, 2, n)).astype(np.float32)
    v = values.astype(np.float64)
    nonzero = v[v != 0]
    OUT["statistics"].append({
        "values": values.tolist(), "mean": v.mean(), "sd": v.std(),
        "p05_p995": np.percentile(v, [0.5, 99.5]).tolist(), "p10_p63": np.percentile(v, [10, 63]).tolist(),
        "nonzero_mean": nonzero.mean() if nonzero.size else 0.0, "nonzero_sd": nonzero.std() if nonzero.size else 0.0,
    })

# Thick slices: SciPy's spline within each slice, the nearest slice across, clipped to the range of the image.
for old, old_mm, new_mm in [
    ((5, 8, 9), (5.0, 1.0, 1.0), (2.0, 0.8, 1.3)),
    ((9, 4, 8), (1.0, 4.0, 1.0), (1.2, 1.0, 0.9)),
    ((7, 9, 12), (1.0, 1.0, 1.0), (1.0, 1.0, 3.5)),
]:
    image = RNG.normal(size=old).astype(np.float32) * 100
    new = [int(round(n * a / b)) for n, a, b in zip(old, old_mm, new_mm)]
    thick = int(np.argmax(old_mm if max(old_mm) > 3 * min(old_mm) else new_mm))
    ratio = np.delete(np.array(new) / old, thick)
    slices = np.moveaxis(image.astype(np.float64), thick, 0)
    slices = np.stack([ndimage.zoom(s, ratio, order=3, mode="nearest", grid_mode=True) for s in slices])
    n, m = old[thick], new[thick]
    cubic = np.moveaxis(slices[((2 * np.arange(m) + 1) * n) // (2 * m)], 0, thick).clip(image.min(), image.max())
    assert cubic.shape == tuple(new)
    OUT["anisotropic"].append({
        "from": old, "to": new, "from_mm": old_mm, "to_mm": new_mm,
        "image": image.ravel().tolist(), "cubic": cubic.ravel().tolist(),
    })

(HERE / "reference.json").write_text(json.dumps(OUT, separators=(",", ":")) + "\n")
