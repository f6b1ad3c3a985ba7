"""Reads volumes and folds as pipe writes them, and describes single voxels by numbers."""

import ast
import csv
import math
import struct
from array import array
from pathlib import Path

VOLUMES = Path("in/volumes")


def read_npy(path: Path) -> tuple[tuple[int, ...], array]:
    """Shape and values (C order) of a .npy file of float32 or uint8. With NumPy: numpy.load(path, mmap_mode="r")."""
    data = path.read_bytes()
    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"{path} is no .npy file")
    size, start = struct.unpack_from("<H", data, 8)[0], 10
    if data[6] > 1:
        size, start = struct.unpack_from("<I", data, 8)[0], 12
    header = ast.literal_eval(data[start : start + size].decode("latin1"))
    kinds = {"<f4": "f", "|u1": "B"}
    if header["descr"] not in kinds or header["fortran_order"]:
        raise ValueError(f"{path} holds {header['descr']}; only <f4 and |u1 in C order are read")
    values = array(kinds[header["descr"]])
    values.frombytes(data[start + size :])
    return header["shape"], values


def cases(part: str) -> list[str]:
    """Ids of the cases that are in `part` (train or test) of the split and have a label."""
    with open("in/split/folds.csv", newline="", encoding="utf-8") as file:
        wanted = {row["id"] for row in csv.DictReader(file) if row["part"] == part}
    with open(VOLUMES / "meta.csv", newline="", encoding="utf-8") as file:
        known = [row["id"] for row in csv.DictReader(file)]
    return sorted(case for case in known if case in wanted and (VOLUMES / "labels" / f"{case}.npy").exists())


class Case:
    """One prepared image [c, z, y, x] with its label map [z, y, x]; the first channel is used."""

    def __init__(self, name: str):
        (_, *self.shape), self.image = read_npy(VOLUMES / "images" / f"{name}.npy")
        shape, self.label = read_npy(VOLUMES / "labels" / f"{name}.npy")
        if list(shape) != self.shape:
            raise ValueError(f"case {name}: image is {self.shape}, label is {list(shape)}")

    def inner(self) -> list[int]:
        """Flat indices of the voxels that have neighbours on all sides."""
        depth, height, width = self.shape
        return [
            (z * height + y) * width + x
            for z in range(1, depth - 1)
            for y in range(1, height - 1)
            for x in range(1, width - 1)
        ]

    def features(self, index: int) -> tuple[float, ...]:
        """Brightness, brightness around, and where the voxel lies, -1 to 1 along each axis."""
        _, height, width = self.shape
        plane = height * width
        image = self.image
        around = image[index - 1] + image[index + 1] + image[index - width] + image[index + width]
        around = (around + image[index - plane] + image[index + plane]) / 6
        z, rest = divmod(index, plane)
        y, x = divmod(rest, width)
        z, y, x = (2 * at / (size - 1) - 1 for at, size in zip((z, y, x), self.shape))
        return (1.0, image[index], around, around * around, z, y, x, z * z, y * y, x * x, y * z)


def probability(weights: list[float], features: tuple[float, ...]) -> float:
    """The logistic function of the weighted sum."""
    score = sum(weight * feature for weight, feature in zip(weights, features))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))
