"""Makes rounding.onnx: a network of PyTorch whose class of a voxel is its value, rounded, for values from 0 to 31.

    python -m venv V && V/bin/pip install torch onnx
    V/bin/python generate.py        # writes rounding.onnx beside this file

Logits are c·x − c²/2, highest at the whole number c next to x. Batch and sizes are open; nothing in the file tells what the
classes are called or what intensities were trained on. Made with Python 3.11.7, torch 2.15.0, onnx 1.23.2.
"""

from pathlib import Path

import torch

CLASSES = 32

network = torch.nn.Conv3d(1, CLASSES, 1).eval()
with torch.no_grad():
    number = torch.arange(CLASSES, dtype=torch.float32)
    network.weight.copy_(number.reshape(-1, 1, 1, 1, 1))
    network.bias.copy_(-number * number / 2)
axes = {0: "batch", 2: "depth", 3: "height", 4: "width"}
torch.onnx.export(
    network,
    torch.zeros(1, 1, 4, 4, 4),
    Path(__file__).with_name("rounding.onnx"),
    input_names=["image"],
    output_names=["scores"],
    dynamic_axes={"image": axes, "scores": axes},
    opset_version=17,
    dynamo=False,
)
