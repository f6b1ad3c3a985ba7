"""Makes the reference values of this folder: PyTorch's logits of the networks in `tests/onnx/networks.rs`, nnU-Net's
sliding window over one of them, and ONNX files that pipe did not write.

    python -m venv V && V/bin/pip install torch numpy scipy onnx && V/bin/pip install --no-deps nnunetv2 acvl_utils batchgenerators
    V/bin/python make.py                  # writes *.f32, *.onnx and origin.json beside this file
    V/bin/python make.py check FOLDER     # runs onnx.checker on every .onnx file that the tests wrote to FOLDER

Weights and inputs are a formula, so they are not stored; `values` here and in `networks.rs` must agree.
"""

import itertools
import json
import platform
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

HERE = Path(__file__).parent


def values(seed, shape, scale=1.0, offset=0.0):
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    raw = ((i * i * 31 + i * 7919 + seed * 104729 + 17) % 2003).astype(np.float64) / 2003.0 - 0.5
    return torch.from_numpy((raw * scale + offset).astype(np.float32).reshape(shape))


def weight(seed, shape):
    # Drawn from ±0.5 times this, so activations keep their size: sqrt(12 / fan in).
    return values(seed, shape, float(np.sqrt(12.0 / np.prod(shape[1:]))))


def norm(seed, c):
    return values(seed, [c], 0.4, 1.0), values(seed + 1, [c], 0.4)


def unet2d(x):
    """2 channels, 3 classes; instance norm, stride 2 down, transposed convolution up, batch norm in the decoder."""
    a = F.conv2d(x, weight(1, [4, 2, 3, 3]), values(2, [4], 0.2), padding=1)
    a = F.leaky_relu(F.instance_norm(a, weight=norm(3, 4)[0], bias=norm(3, 4)[1], eps=1e-5), 0.01)
    b = F.conv2d(a, weight(5, [8, 4, 3, 3]), values(6, [8], 0.2), stride=2, padding=1)
    b = F.leaky_relu(F.instance_norm(b, weight=norm(7, 8)[0], bias=norm(7, 8)[1], eps=1e-5), 0.01)
    u = F.conv_transpose2d(b, weight(9, [8, 4, 2, 2]), values(10, [4], 0.2), stride=2)
    d = F.conv2d(torch.cat([a, u], 1), weight(11, [4, 8, 3, 3]), padding=1)
    d = F.batch_norm(d, values(12, [4], 0.2), values(13, [4], 0.5, 1.0), *norm(14, 4), eps=1e-3)
    return F.conv2d(F.relu(d), weight(16, [3, 4, 1, 1]), values(17, [3], 0.2))


def unet3d(x):
    """1 channel, 2 classes; an in-plane max pool, then a full one; nearest enlargement and a residual sum."""
    a = F.leaky_relu(F.conv3d(x, weight(21, [4, 1, 3, 3, 3]), values(22, [4], 0.2), padding=1), 0.1)
    b = F.max_pool3d(a, (1, 2, 2))
    b = F.conv3d(b, weight(23, [6, 4, 1, 3, 3]), values(24, [6], 0.2), padding=(0, 1, 1))
    b = F.relu(F.instance_norm(b, weight=norm(25, 6)[0], bias=norm(25, 6)[1], eps=1e-5))
    c = F.max_pool3d(b, 2)
    c = c + F.relu(F.conv3d(c, weight(27, [6, 3, 3, 3, 3]), values(28, [6], 0.2), padding=2, dilation=2, groups=2))
    u = F.interpolate(c, scale_factor=2.0, mode="nearest")
    u = F.conv3d(torch.cat([b, u], 1), weight(29, [4, 12, 3, 3, 3]), values(30, [4], 0.2), padding=1)
    u = F.conv_transpose3d(F.relu(u), weight(31, [4, 4, 1, 2, 2]), values(32, [4], 0.2), stride=(1, 2, 2))
    return F.conv3d(torch.cat([a, u], 1), weight(33, [2, 8, 1, 1, 1]), values(34, [2], 0.2))


def classifier2d(x):
    """1 channel, 3 classes; a residual network's stem, pooled to a vector; the logarithm of two heads' mean."""
    a = F.relu(F.conv2d(x, weight(41, [6, 1, 7, 7]), values(42, [6], 0.2), stride=2, padding=3))
    a = F.max_pool2d(a, 3, stride=2, padding=1).mean((2, 3))
    heads = [F.linear(a, weight(s, [3, 6]), values(s + 1, [3], 0.2)) for s in (43, 45)]
    return torch.stack([h.softmax(1) for h in heads]).mean(0).log()


def shallow2d(x):
    """1 channel, 2 classes, one 3×3 convolution: what the sliding window is compared on."""
    return F.conv2d(x, weight(51, [2, 1, 3, 3]), values(52, [2], 0.2), padding=1)


def sliding_window(network, x, tile, mirror):
    """Probabilities of `x` with nnU-Net's own tile positions and Gaussian, and the mean of all mirrorings' logits."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    gaussian = compute_gaussian(tuple(tile), dtype=torch.float64, device=torch.device("cpu"))
    steps = compute_steps_for_sliding_window(tuple(x.shape[2:]), tuple(tile), 0.5)
    total, weights = 0, torch.zeros(x.shape[2:], dtype=torch.float64)
    axes = [a + 2 for a in mirror]
    flips = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
    for start in itertools.product(*steps):
        at = tuple(slice(s, s + t) for s, t in zip(start, tile))
        piece = x[(slice(None), slice(None), *at)]
        logits = torch.stack([network(piece.flip(f)).flip(f) for f in flips]).double().mean(0)
        if isinstance(total, int):
            total = torch.zeros((1, logits.shape[1], *x.shape[2:]), dtype=torch.float64)
        total[(slice(None), slice(None), *at)] += logits * gaussian
        weights[at] += gaussian
    return (total / weights).softmax(1)


def foreign():
    """Models that another program wrote: a fixed shape, foreign names, an integer input."""

    def model(name, inputs, outputs, nodes, initializers=(), metadata=None):
        graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(made, metadata or {})
        onnx.checker.check_model(made, full_check=True)
        onnx.save(made, HERE / f"{name}.onnx")

    def tensor(name, shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    scale = helper.make_tensor("scale", TensorProto.FLOAT, [1, 2, 1, 1], [1.0, -1.0])
    fixed = [2, 1, 8, 8]
    double = [helper.make_node("Mul", ["input", "scale"], ["logits"])]
    model("fixed_shape", [tensor("input", fixed)], [tensor("logits", [2, 2, 8, 8])], double, [scale])
    open_shape = [None, 1, None, None]
    names = [helper.make_node("Relu", ["image"], ["score"])]
    model("foreign_names", [tensor("image", open_shape)], [tensor("score", open_shape)], names)
    cast = [helper.make_node("Cast", ["input"], ["logits"], to=TensorProto.FLOAT)]
    model("integer_input", [tensor("input", open_shape, TensorProto.INT32)], [tensor("logits", open_shape)], cast)
    both = [helper.make_node("Add", ["input", "other"], ["logits"])]
    model("two_inputs", [tensor("input", open_shape), tensor("other", open_shape)], [tensor("logits", open_shape)], both)
    coarse = [helper.make_node("Relu", ["image"], ["fine"]), helper.make_node("MaxPool", ["image"], ["coarse"], kernel_shape=[2, 2])]
    model("two_outputs", [tensor("image", open_shape)], [tensor("fine", open_shape), tensor("coarse", open_shape)], coarse)
    relu = [helper.make_node("Relu", ["input"], ["logits"])]
    spoiled = {"spatial_divisor": "4,zero"}
    model("bad_divisor", [tensor("input", open_shape)], [tensor("logits", open_shape)], relu, metadata=spoiled)


def check(folder):
    files = sorted(Path(folder).glob("*.onnx"))
    for file in files:
        onnx.checker.check_model(str(file), full_check=True)
        made = onnx.load(file)
        print(file.name, "passes; ir", made.ir_version, "opset", made.opset_import[0].version, "nodes", len(made.graph.node))
    if not files:
        sys.exit(f"no .onnx file in {folder}")


def make():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        found = {
            "unet2d": unet2d(values(101, [2, 2, 8, 12], 2.0)),
            "unet3d": unet3d(values(102, [1, 1, 4, 8, 12], 2.0)),
            "classifier2d": classifier2d(values(103, [3, 1, 16, 24], 2.0)),
            "sliding_window": sliding_window(shallow2d, values(104, [1, 1, 23, 30], 2.0), [8, 12], []),
            "sliding_window_mirrored": sliding_window(shallow2d, values(104, [1, 1, 23, 30], 2.0), [8, 12], [0, 1]),
        }
    shapes = {}
    for name, array in found.items():
        array.numpy().astype("<f4").tofile(HERE / f"{name}.f32")
        shapes[name] = list(array.shape)
    foreign()
    import importlib.metadata as m

    origin = {
        "made_by": "make.py",
        "python": platform.python_version(),
        "versions": {p: m.version(p) for p in ("torch", "numpy", "scipy", "onnx", "nnunetv2")},
        "shapes": shapes,
    }
    (HERE / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["check"] else make()
