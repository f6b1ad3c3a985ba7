#!/usr/bin/env python3
"""The most memory and the time that `pipe predict` takes for one large volume.

    pip install numpy nibabel onnx
    cargo build --release
    python3 benches/peers/memory.py --pipe target/release/pipe

A volume of noise in int16 (512×512×600 voxels unless told otherwise) and a U-Net of one level with 4 features for 5 labels and
background, written as ONNX here and taken in by `import-model`; its weights are random, since only sizes count. One row predicts
on the volume's own grid, the other on voxels a quarter longer, whose probabilities are moved back. The peak is what the kernel
counted for the process (ru_maxrss). As one array the probabilities alone would be 24 bytes a voxel.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, FEATURES = 6, 4


def network(path):
    rng, nodes, weights, x = np.random.default_rng(1), [], [], "input"

    def weight(name, shape, scale=1.0):
        weights.append(numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name))
        return name

    for at, (cin, cout, size) in enumerate([(1, FEATURES, 3), (FEATURES, FEATURES, 3), (FEATURES, CLASSES, 1)]):
        last = size == 1
        kernel = weight(f"w{at}", (cout, cin, size, size, size), (2 / (cin * size**3)) ** 0.5)
        nodes.append(helper.make_node("Conv", [x, kernel], ["logits" if last else f"c{at}"], kernel_shape=[size] * 3,
                                      pads=[size // 2] * 6))
        if not last:
            nodes.append(helper.make_node("InstanceNormalization", [f"c{at}", weight(f"s{at}", cout), weight(f"b{at}", cout)],
                                          [f"n{at}"], epsilon=1e-5))
            nodes.append(helper.make_node("LeakyRelu", [f"n{at}"], [f"a{at}"], alpha=0.01))
            x = f"a{at}"
    value = lambda name, c: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, "z", "y", "x"])
    graph = helper.make_graph(nodes, "tiny", [value("input", 1)], [value("logits", CLASSES)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def volume(path, shape, spacing):
    rng = np.random.default_rng(2)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape[::-1])
    header.set_sform(np.diag([*spacing, 1.0]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with open(path, "wb") as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(shape[0]):
            file.write(rng.integers(-1000, 2000, shape[1:], dtype=np.int16).tobytes())


def pipeline(spacing):
    labels = ", ".join(f"l{label}: {label}" for label in range(CLASSES))
    return (f"name: p\nstages:\n  model: {{ uses: import-model, with: {{ file: model.onnx, labels: {{ {labels} }}, "
            f"patch: [64, 128, 128], normalize: zscore, spacing_mm: {spacing} }} }}\n")


def measured(command, folder):
    """Peak memory in bytes, and wall and CPU seconds."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    text = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"`{' '.join(map(str, command))}` failed:\n{text}")
    return usage.ru_maxrss * 1024, time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", type=Path, required=True, help="the program, release build")
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--overlap", default="0")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--scratch", help="where the volume of 2 bytes a voxel may lie")
    parser.add_argument("--only", choices=["same", "longer"], help="one row alone")
    arguments = parser.parse_args()
    pipe, voxels, spacing = arguments.pipe.resolve(), int(np.prod(arguments.shape)), [0.7, 0.7, 0.7]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        folder = Path(folder)
        network(folder / "model.onnx")
        volume(folder / "volume.nii", arguments.shape, spacing)
        for name, own in (("same", "null"), ("longer", [1.25 * mm for mm in spacing])):
            if arguments.only not in (None, name):
                continue
            (folder / "pipeline.yaml").write_text(pipeline(own))
            measured([pipe, "run", "pipeline.yaml"], folder)
            peak, wall, cpu = measured([pipe, "predict", "results/p/model", "volume.nii", "-o", f"{name}.nii.gz",
                                        "--overlap", arguments.overlap, "-j", arguments.threads], folder)
            found = nibabel.load(folder / f"{name}.nii.gz")
            assert found.shape == tuple(arguments.shape[::-1]), found.shape
            counts = np.bincount(np.asanyarray(found.dataobj).ravel(), minlength=CLASSES)
            print(f"{'×'.join(map(str, arguments.shape))} voxels, {name} voxel size: {peak / 1e9:.2f} GB, {peak / voxels:.1f} bytes a "
                  f"voxel, {wall:.0f} s, {cpu:.0f} s of CPU time; {np.count_nonzero(counts)} of {CLASSES} labels occur", flush=True)


if __name__ == "__main__":
    main()
