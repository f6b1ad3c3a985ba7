"""Writes the files of other programs that networks begin with: a PyTorch module as safetensors and as ONNX, and its logits.

    python pretrained.py          # needs torch 2.15.0, numpy, safetensors 0.8, onnx 1.23.2; writes pretrained* beside itself

The module is a small residual classifier with the names that PyTorch users give, inside a wrapper (`module.`), in training
mode, so that batch normalisation keeps its running means in the ONNX file. `pretrained.safetensors` holds one tensor in half
precision, one in bfloat16 and one in float64, and a counter of int64, as state dictionaries do. `pretrained_logits.safetensors`
holds an input and the logits of evaluation, computed in float64 with the values as they were stored.
"""

import copy
import pathlib

import torch
from safetensors.torch import load_file, save_file
from torch import nn

HERE = pathlib.Path(__file__).parent


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.layer1 = Block(width)
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(self.layer1(self.stem(x)).mean((2, 3)))


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = Net()

    def forward(self, x):
        return self.module(x)


torch.manual_seed(5)
model = Wrapper()
with torch.no_grad():
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.copy_(torch.randn_like(value) * 0.4 + (1.0 if "bn" in name and name.endswith("weight") else 0.0))
stored = dict(model.state_dict())
stored["module.stem.0.weight"] = stored["module.stem.0.weight"].half()
stored["module.layer1.conv1.weight"] = stored["module.layer1.conv1.weight"].bfloat16()
stored["module.fc.weight"] = stored["module.fc.weight"].double()
save_file(stored, HERE / "pretrained.safetensors")
assert load_file(HERE / "pretrained.safetensors")["module.stem.1.num_batches_tracked"].dtype == torch.int64

model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in stored.items()})
x = torch.randn(2, 1, 6, 8)
with torch.no_grad():
    logits = copy.deepcopy(model).double().eval()(x.double())
save_file({"input": x, "logits": logits.float()}, HERE / "pretrained_logits.safetensors")
for part in model.modules():
    if isinstance(part, nn.BatchNorm2d):
        part.momentum = 0.0  # the exporter runs the module, which must not move its running means
torch.onnx.export(
    model.train(), (x,), HERE / "pretrained.onnx", dynamo=False, do_constant_folding=False,
    training=torch.onnx.TrainingMode.TRAINING, input_names=["image"], output_names=["logits"],
)
