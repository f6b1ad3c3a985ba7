"""Times the sliding window of pipe beside the same network in PyTorch with MONAI's sliding_window_inference.

    pip install torch monai onnx numpy nibabel
    cargo build --release -p pipe-onnx --example sliding_window
    python3 benches/peers/predict.py --ours target/release/examples/sliding_window

One volume of noise, or a real one (--volume), a 3D U-Net (instance normalisation, leaky ReLU, strided and transposed
convolutions) with random weights, written as ONNX here from the PyTorch weights. The same patches, overlap, weights (MONAI's
Gaussian, or --blend constant) and number of threads. Rounds alternate; what counts is the ratio of each pair. How far the
probabilities are apart is printed too.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Block(nn.Module):
    """Two convolutions of 3×3×3, each with instance normalisation and leaky ReLU; the first may stride."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv3d(cin, cout, 3, stride, 1), nn.Conv3d(cout, cout, 3, 1, 1)])
        self.norms = nn.ModuleList([nn.InstanceNorm3d(cout, affine=True) for _ in range(2)])

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.01)
        return x


class UNet(nn.Module):
    def __init__(self, classes, levels, base):
        super().__init__()
        width = [base << level for level in range(levels)]
        self.down = nn.ModuleList([Block(1 if i == 0 else width[i - 1], width[i], 1 if i == 0 else 2) for i in range(levels)])
        self.up = nn.ModuleList([nn.ConvTranspose3d(width[i + 1], width[i], 2, 2) for i in range(levels - 1)])
        self.join = nn.ModuleList([Block(2 * width[i], width[i], 1) for i in range(levels - 1)])
        self.head = nn.Conv3d(width[0], classes, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up, join in zip(reversed(self.up), reversed(self.join)):
            x = join(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


def to_onnx(net, classes, path):
    """The same graph, operator by operator, with the same weights."""
    nodes, weights = [], []

    def weight(name, tensor):
        weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def add(kind, inputs, **attributes):
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(kind, x, layer, name, **attributes):
        size = list(layer.kernel_size)
        return add(kind, [x, weight(f"{name}.w", layer.weight), weight(f"{name}.b", layer.bias)], kernel_shape=size,
                   strides=list(layer.stride), pads=[p for p in layer.padding] * 2, **attributes)

    def block(x, module, name):
        for i, (layer, norm) in enumerate(zip(module.convs, module.norms)):
            x = conv("Conv", x, layer, f"{name}.{i}")
            x = add("InstanceNormalization", [x, weight(f"{name}.{i}.s", norm.weight), weight(f"{name}.{i}.t", norm.bias)], epsilon=norm.eps)
            x = add("LeakyRelu", [x], alpha=0.01)
        return x

    x, skips = "input", []
    for i, down in enumerate(net.down):
        x = block(x, down, f"down{i}")
        skips.append(x)
    skips.pop()
    for i in reversed(range(len(net.up))):
        up = conv("ConvTranspose", x, net.up[i], f"up{i}")
        x = block(add("Concat", [skips.pop(), up], axis=1), net.join[i], f"join{i}")
    conv("Conv", x, net.head, "head")
    nodes[-1].output[0] = "logits"
    shape = lambda c: ["batch", c, "z", "y", "x"]
    graph = helper.make_graph(nodes, "unet", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape(1))],
                              [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape(classes))], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"spatial_divisor": ",".join([str(1 << (len(net.down) - 1))] * 3)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="the example sliding_window of pipe-onnx")
    parser.add_argument("--volume", help="a NIfTI file, brought to mean 0 and variance 1; noise of twice the patch unless given")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--blend", choices=["gaussian", "constant"], default="gaussian")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sessions", type=int, help="tiles at a time; as many as threads unless given")
    parser.add_argument("--sw-batch", type=int, default=1, help="MONAI's sw_batch_size")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    net = UNet(args.classes, args.levels, args.base).eval()
    if args.volume:
        import nibabel

        voxels = torch.from_numpy(np.asarray(nibabel.load(args.volume).dataobj, np.float32).T.copy())
        volume = ((voxels - voxels.mean()) / voxels.std())[None, None]
    else:
        volume = torch.randn(1, 1, *[2 * args.patch] * 3)
    size = list(volume.shape[2:])
    sessions = args.sessions or args.threads

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model, data, out = (str(Path(folder) / name) for name in ("model.onnx", "volume.f32", "out.f32"))
        to_onnx(net, args.classes, model)
        volume.numpy().astype("<f4").tofile(data)
        command = [args.ours, model, data, "1", *map(str, size), str(args.patch), str(args.overlap), args.blend,
                   str(sessions), str(args.threads // sessions), out]
        ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)

        def run_ours():
            ours.stdin.write("\n")
            ours.stdin.flush()
            return tuple(map(float, ours.stdout.readline().split()))

        def run_theirs():
            wall, used = time.perf_counter(), cpu()
            logits = sliding_window_inference(volume, (args.patch,) * 3, args.sw_batch, net, overlap=args.overlap,
                                              mode=args.blend)
            probabilities = logits.softmax(1)
            return (time.perf_counter() - wall, cpu() - used), probabilities

        run_ours()
        _, theirs = run_theirs()
        found = np.fromfile(out, "<f4").reshape(size[0], args.classes, *size[1:]).transpose(1, 0, 2, 3)
        apart = np.abs(found - theirs[0].numpy()).max()
        pairs = []
        for index in range(args.rounds):
            # Who goes first alternates: the machine may grow warm.
            if index % 2:
                other, _ = run_theirs()
                own = run_ours()
            else:
                own = run_ours()
                other, _ = run_theirs()
            pairs.append((own, other))
        ours.stdin.close()
        ours.wait()

    def row(kind):
        ratios = [other[kind] / own[kind] for own, other in pairs]
        middle = lambda side: round(statistics.median(pair[side][kind] for pair in pairs), 3)
        return {"pipe_s": middle(0), "monai_s": middle(1), "ratio": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}

    print(json.dumps({"volume": args.volume or "noise", "size": size, "patch": args.patch, "overlap": args.overlap,
                      "blend": args.blend, "threads": args.threads, "sessions": sessions,
                      "levels": args.levels, "base": args.base, "torch": torch.__version__,
                      "largest_difference_of_probabilities": float(apart), "wall": row(0), "cpu": row(1)}, indent=2))


if __name__ == "__main__":
    main()
