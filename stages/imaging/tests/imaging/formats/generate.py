"""Makes the files beside it with pydicom, SimpleITK, Pillow and NumPy, and `expected.json` with what those libraries
read back from them. Versions are in there.

    python3 -m venv venv && venv/bin/pip install pydicom SimpleITK nibabel pillow tifffile && venv/bin/python generate.py
"""

import io
import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import PIL
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless,
)

HERE = pathlib.Path(__file__).parent
RNG = np.random.default_rng(20261123)
OUT = {"versions": {"pydicom": pydicom.__version__, "SimpleITK": sitk.Version.VersionString(), "numpy": np.__version__, "nibabel": nib.__version__,
                    "pillow": PIL.__version__},
       "dicom": [], "volumes": [], "rasters": []}


def rotation():
    q, r = np.linalg.qr(RNG.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def ras(image):
    """The affine of a SimpleITK image in RAS, for index (x, y, z)."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return (np.diag([-1, -1, 1, 1]) @ affine).tolist()


def dicom(name, syntax=ExplicitVRLittleEndian, slices=3, rows=4, columns=5, dtype=np.int16, stored=None,
          slopes=None, axes=None, step=2.5, encode=None, **extra):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    dtype = np.dtype(dtype)
    stored = stored or dtype.itemsize * 8
    low, top = (-(1 << stored - 1), 1 << stored - 1) if dtype.kind == "i" else (0, 1 << stored)
    axes = rotation() if axes is None else axes
    origin = np.array([-12.5, 30.25, 7.75])
    study, series = (pydicom.uid.generate_uid(entropy_srcs=[name, part]) for part in ("study", "series"))
    for k in RNG.permutation(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.MRImageStorage
        uid = pydicom.uid.generate_uid(entropy_srcs=[name, str(k)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.PatientID, data.StudyDate, data.Modality, data.SeriesDescription = "P-7", "20200119", "MR", name
        data.PatientName = "Nobody^At All"
        # Sequences of defined and undefined length stand before the pixels.
        item = pydicom.Dataset()
        item.ReferencedSOPInstanceUID = uid
        inner = pydicom.Dataset()
        inner.CodeValue = "T-A2900"
        item.PurposeOfReferenceCodeSequence = pydicom.Sequence([inner])
        data.ReferencedImageSequence = pydicom.Sequence([item])
        data["ReferencedImageSequence"].is_undefined_length = True
        item.is_undefined_length_sequence_item = True
        item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
        data.SourceImageSequence = pydicom.Sequence([inner])
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = dtype.itemsize * 8, stored, stored - 1
        data.PixelRepresentation = int(dtype.kind == "i")
        data.PixelSpacing, data.SliceThickness = [0.75, 1.5], 9.0
        data.ImageOrientationPatient = [f"{v:.12f}"[:16] for v in [*axes[:, 0], *axes[:, 1]]]
        data.ImagePositionPatient = [f"{v:.12f}"[:16] for v in origin + axes[:, 2] * step * int(k)]
        if slopes:
            data.RescaleSlope, data.RescaleIntercept = str(slopes[k][0]), str(slopes[k][1])
        for key, value in extra.items():
            setattr(data, key, value)
        pixels = RNG.integers(low, top, (rows, columns)).astype(dtype)
        raw = (pixels.astype(np.int64) & ((1 << stored) - 1))
        raw = raw.astype(f"u{dtype.itemsize}")
        data.PixelData = raw.astype(raw.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
        if len(data.PixelData) % 2:
            data.PixelData += b"\0"
        data["PixelData"].VR = "OB" if dtype.itemsize == 1 else "OW"
        # The name says nothing about the order.
        path = folder / f"{int(RNG.integers(1000, 9999))}.dcm"
        pydicom.dcmwrite(path, data, enforce_file_format=True, little_endian=None if syntax != ExplicitVRBigEndian else False,
                         implicit_vr=None)
    expect(folder)
    for path in sorted(folder.iterdir()) if encode else []:
        if encode == "jpeg-lossless":
            # GDCM writes process 14, selection value 1.
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.UseCompressionOn()
            writer.SetCompressor("JPEG")
            writer.SetFileName(path)
            writer.Execute(sitk.ReadImage(path))
            continue
        data = pydicom.dcmread(path)
        if encode == "rle":
            data.compress(RLELossless, generate_instance_uid=False)
        else:
            packed = io.BytesIO()
            Image.fromarray(data.pixel_array).save(packed, "JPEG", quality=95)
            data.PixelData = pydicom.encaps.encapsulate([packed.getvalue()])
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.save_as(path)
    if encode == "jpeg":
        OUT["dicom"][-1]["values"] = values(folder)[1].astype(np.float32).ravel().tolist()


def values(folder):
    """Slices along the normal, and their rescaled values."""
    read = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    normal = np.cross(*np.array(read[0].ImageOrientationPatient, float).reshape(2, 3))
    read.sort(key=lambda data: np.dot(normal, np.array(data.ImagePositionPatient, float)))
    return read, np.array([apply_rescale(data.pixel_array.astype(np.float64), data) for data in read])


def expect(folder):
    """What pydicom and SimpleITK agree on."""
    read, found = values(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    size = list(image.GetSize())[::-1]
    assert size == list(found.shape), (size, found.shape)
    assert np.allclose(sitk.GetArrayFromImage(image), found, rtol=1e-6), folder
    OUT["dicom"].append({
        "folder": folder.name, "shape_zyx": size, "affine": ras(image), "patient": read[0].PatientID,
        "dtype": ("int" if read[0].PixelRepresentation else "uint") + str(read[0].BitsAllocated),
        "values": found.astype(np.float32).ravel().tolist(),
    })


dicom("dicom_oblique")
dicom("dicom_implicit", ImplicitVRLittleEndian, dtype=np.uint16)
dicom("dicom_big_endian", ExplicitVRBigEndian)
dicom("dicom_12_bits_signed", stored=12)
dicom("dicom_12_bits", dtype=np.uint16, stored=12)
dicom("dicom_rescaled", slopes=[(1.3526, -1024.5), (2.0, 3.25), (0.001, 0.0)])
dicom("dicom_8_bits_odd", dtype=np.uint8, rows=3, columns=5)
dicom("dicom_32_bits", dtype=np.int32, slopes=[(1, 0)] * 3)
dicom("dicom_run_length", encode="rle", rows=6, columns=7)
dicom("dicom_run_length_8_bits", dtype=np.uint8, encode="rle")
dicom("dicom_jpeg_baseline", dtype=np.uint8, encode="jpeg", rows=16, columns=9)
dicom("dicom_jpeg_lossless", dtype=np.uint16, encode="jpeg-lossless", rows=8, columns=9)
dicom("dicom_sagittal", axes=np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]) * [1, 1, -1])



# MetaImage and NRRD, written and read by SimpleITK.
def volume(name, dtype=np.int16, size=(3, 4, 5), channels=1, direction=None, compress=False, patch=None):
    shape = (*size, channels) if channels > 1 else size
    low, top = (np.iinfo(dtype).min, np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else (-1000, 1000)
    values = RNG.integers(low, top, shape, dtype=np.int64 if np.dtype(dtype) != np.uint64 else np.uint64)
    values = values.astype(dtype) if np.dtype(dtype).kind in "iu" else RNG.normal(0, 1000, shape).astype(dtype)
    image = sitk.GetImageFromArray(values, isVector=channels > 1)
    rank = len(size)
    image.SetSpacing([0.75, 1.5, 3.25][:rank])
    image.SetOrigin([-12.5, 30.25, 7.75][:rank])
    image.SetDirection(np.eye(rank).ravel() if direction is None else direction.ravel())
    sitk.WriteImage(image, HERE / name, useCompression=compress)
    if patch:
        path = HERE / name
        path.write_bytes(patch(path.read_bytes()))
    read = sitk.ReadImage(HERE / name)
    found = sitk.GetArrayFromImage(read).astype(np.float32)
    if rank == 2:
        read3 = sitk.JoinSeries(read)
        found = found[None]
        read = read3
    if channels > 1:
        found = np.moveaxis(found, -1, 0)
    OUT["volumes"].append({
        "file": name, "shape_zyx": list(found.shape[-3:]), "channels": channels, "dtype": np.dtype(dtype).name,
        "affine": ras(read), "values": found.ravel().tolist(),
    })


def big_endian_mha(raw):
    head, data = raw.split(b"LOCAL\n")
    head = head.replace(b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True")
    return head + b"LOCAL\n" + np.frombuffer(data, "<i2").astype(">i2").tobytes()


for suffix in ("mha", "nrrd"):
    volume(f"oblique.{suffix}", direction=rotation())
    volume(f"deflated.{suffix}", np.float32, direction=rotation(), compress=True)
    volume(f"channels.{suffix}", np.float32, channels=2, direction=rotation())
    volume(f"flat.{suffix}", np.uint8, size=(4, 5))
    for dtype in (np.int8, np.uint16, np.uint32, np.int32, np.int64, np.uint64, np.float64):
        volume(f"{np.dtype(dtype).name}.{suffix}", dtype, size=(2, 2, 2))
volume("detached.mhd", direction=rotation())
volume("detached.nhdr", direction=rotation(), compress=True)
volume("big_endian.mha", patch=big_endian_mha)


# NIfTI-2, written and read by nibabel.
def nifti2(name, array, affine, qform=False, big=False):
    header = nib.Nifti2Header(endianness=">" if big else "<")
    header.set_data_dtype(array.dtype)
    image = nib.Nifti2Image(array, affine, header, dtype=array.dtype)
    if qform:
        image.header.set_qform(affine, 1)
        image.header.set_sform(None, 0)
    nib.save(image, HERE / name)
    read = nib.load(HERE / name)
    assert isinstance(read, nib.Nifti2Image)
    values = read.get_fdata().astype(np.float32)
    OUT["volumes"].append({
        "file": name, "shape_zyx": list(read.shape[2::-1]), "channels": int(np.prod(read.shape[3:])),
        "dtype": array.dtype.name, "affine": read.affine.tolist(), "values": values.ravel(order="F").tolist(),
    })


turned = np.eye(4)
turned[:3, :3] = rotation() * [0.9, 1.1, 3.0]
turned[:3, 3] = [-12.5, 30.25, 7.75]
nifti2("two_sform.nii.gz", RNG.integers(-1000, 1000, (4, 3, 2)).astype(np.int16), turned)
nifti2("two_qform.nii", RNG.normal(size=(4, 3, 2)), turned, qform=True)
nifti2("two_big_endian.nii.gz", RNG.normal(size=(4, 3, 2, 2)).astype(np.float32), turned, big=True)


# PNG, JPEG and TIFF, written and read by Pillow, placed by SimpleITK. Values go by channel, y, x; `labels` are the
# indices of a palette.
def raster(name, image, colour=False, **options):
    image.save(HERE / name, **options)
    read = Image.open(HERE / name)
    found = np.moveaxis(np.asarray(read.convert("RGB")), -1, 0) if colour else np.asarray(read)[None]
    OUT["rasters"].append({
        "file": name, "channels": len(found), "dtype": "uint16" if read.mode.startswith("I") else "uint8",
        "shape_yx": list(found.shape[1:]), "affine": ras(sitk.JoinSeries(sitk.ReadImage(HERE / name))), "values": found.astype(np.float32).ravel().tolist(),
        "labels": np.asarray(read).ravel().tolist() if read.mode == "P" else None,
    })


eight = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
sixteen = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
smooth = (np.add.outer(np.arange(16), np.arange(24)) * 6).astype(np.uint8)
raster("grey_8.png", Image.fromarray(eight))
raster("grey_16.png", Image.fromarray(sixteen))
raster("one_bit.png", Image.fromarray(eight > 127))
OUT["rasters"][-1]["values"] = [255 * v for v in OUT["rasters"][-1]["values"]]
raster("grey.jpg", Image.fromarray(smooth), quality=95)
raster("grey_8.tif", Image.fromarray(eight), compression="tiff_lzw")
raster("grey_16.tif", Image.fromarray(sixteen), compression="tiff_deflate")
raster("colour.png", Image.fromarray(RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)), colour=True)
raster("palette.png", Image.fromarray(RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)).convert("P"), colour=True)
four = Image.fromarray((eight % 4).astype(np.uint8), mode="P")
four.putpalette([0, 0, 0, 200, 30, 30, 20, 180, 40, 60, 60, 220])
raster("palette_of_4.png", four, colour=True, bits=2)
Image.fromarray(eight).save(HERE / "pages.tif", save_all=True, append_images=[Image.fromarray(eight)])
Image.fromarray(np.dstack([eight, eight])).save(HERE / "transparent.png")

# MedMNIST.
arrays = {}
for split, n in (("train", 3), ("val", 2), ("test", 1)):
    arrays[f"{split}_images"] = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)
    arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None]
np.savez_compressed(HERE / "medmnist.npz", **arrays)
np.savez(HERE / "other.npz", a=np.zeros(3))
np.savez_compressed(HERE / "colour.npz", train_images=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), train_labels=np.zeros((2, 1), np.uint8))
np.savez_compressed(HERE / "unequal.npz", train_images=np.zeros((2, 2, 2), np.uint8), train_labels=np.zeros((1, 1), np.uint8))

(HERE / "expected.json").write_text(json.dumps(OUT, separators=(",", ":")) + "\n")
