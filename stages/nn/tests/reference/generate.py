"""Writes the reference values of tests/runner/pytorch.rs and of the tests in src: PyTorch in float64 on the CPU.

    python generate.py            # needs torch, numpy, safetensors; writes *.safetensors beside itself

Each network file holds the parameters, the input, the labels, the logits, the loss, and the gradient of the loss with
respect to the input and to every parameter (`gradient/<name>`), and for batch normalisation the logits and the loss of
evaluation (`eval/logits`). The modules below are written from the definitions, not from the Rust code.
`optimizers.safetensors` holds the values after 100 steps of each of PyTorch's optimisers on given gradients,
`schedules.safetensors` the rates of its schedulers. Everything is computed in float64 and rounded to float32 once, when
written.
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
IGNORE = 255


class Parameters:
    """Parameters by name, drawn when first asked for, in the layout of PyTorch."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.values, self.buffers = {}, {}

    def __call__(self, name, *shape, scale=1.0, mean=0.0):
        if name not in self.values:
            drawn = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale + mean
            self.values[name] = drawn.float().double().requires_grad_()  # exactly representable in the file
        return self.values[name]

    def buffer(self, name, start):
        return self.buffers.setdefault(name, start)


class Net:
    """The operations of a network over named parameters."""

    def __init__(self, dims, p, norm="instance", activation="leaky-relu", training=True):
        self.dims, self.p, self.kind, self.activation, self.training = dims, p, norm, activation, training

    def op(self, name):
        return getattr(F, f"{name}{self.dims}d")

    def axes(self, value):
        """A size given as z, y, x without z in 2D."""
        return tuple(value[3 - self.dims :])

    def conv(self, name, x, cout, kernel, stride=(1, 1, 1), bias=False):
        cin, kernel = x.shape[1], self.axes(kernel)
        weight = self.p(f"{name}.weight", cout, cin, *kernel, scale=(2 / (cin * math.prod(kernel))) ** 0.5)
        bias = self.p(f"{name}.bias", cout, scale=0.1) if bias else None
        return self.op("conv")(x, weight, bias, stride=self.axes(stride), padding=tuple(k // 2 for k in kernel))

    def norm(self, name, x):
        c = x.shape[1]
        weight = self.p(f"{name}.weight", c, scale=0.2, mean=1.0)
        bias = self.p(f"{name}.bias", c, scale=0.1)
        if self.kind == "instance":
            return F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
        if self.kind.startswith("group"):
            return F.group_norm(x, int(self.kind[5:]), weight, bias, eps=1e-5)
        mean = self.p.buffer(f"{name}.running_mean", torch.linspace(-0.2, 0.3, c).double())
        variance = self.p.buffer(f"{name}.running_var", torch.linspace(0.5, 1.5, c).double())
        # Buffers are not moved: the file must hold what both passes began with.
        return F.batch_norm(x, mean.clone(), variance.clone(), weight, bias, training=self.training, eps=1e-5)

    def act(self, name, x):
        match self.activation:
            case "relu":
                return F.relu(x)
            case "leaky-relu":
                return F.leaky_relu(x, 0.01)
            case "prelu":
                return F.prelu(x, self.p(f"{name}.weight", x.shape[1], scale=0.1, mean=0.25))
            case "gelu":
                return F.gelu(x)
            case "sigmoid":
                return torch.sigmoid(x)
            case "tanh":
                return torch.tanh(x)

    def residual(self, name, x, cout, kernel, stride):
        y = self.act(f"{name}.act0", self.norm(f"{name}.norm0", self.conv(f"{name}.conv0", x, cout, kernel, stride)))
        y = self.norm(f"{name}.norm1", self.conv(f"{name}.conv1", y, cout, kernel))
        if x.shape[1] != cout or tuple(stride) != (1, 1, 1):
            x = self.norm(f"{name}.shortcut_norm", self.conv(f"{name}.shortcut", x, cout, (1, 1, 1), stride))
        return self.act(f"{name}.act1", y + x)

    def unet(self, x, classes, features, strides, kernels, convolutions=2, encoder="plain", down="max-pool",
             up="transposed", skips=True, supervise=False):
        def block(name, x, cout, kernel, stride=(1, 1, 1)):
            for i in range(convolutions):
                x = self.conv(f"{name}.conv{i}", x, cout, kernel, stride if i == 0 else (1, 1, 1))
                x = self.act(f"{name}.act{i}", self.norm(f"{name}.norm{i}", x))
            return x

        kept, levels = [], len(features)
        for level in range(levels):
            stride = strides[level - 1] if level else (1, 1, 1)
            if level:
                kept.append(x)
                if down == "max-pool":
                    x = self.op("max_pool")(x, self.axes(stride))
                elif down == "avg-pool":
                    x = self.op("avg_pool")(x, self.axes(stride))
                if down != "stride":
                    stride = (1, 1, 1)
            if encoder == "plain":
                x = block(f"encoder.{level}", x, features[level], kernels[level], stride)
            else:
                for i in range(convolutions):
                    one = stride if i == 0 else (1, 1, 1)
                    x = self.residual(f"encoder.{level}.block{i}", x, features[level], kernels[level], one)
        outputs = []
        for level in reversed(range(levels - 1)):
            name, here, factor = f"decoder.{level}.up", features[level], self.axes(strides[level])
            if up == "transposed":
                weight = self.p(f"{name}.weight", x.shape[1], here, *factor, scale=x.shape[1] ** -0.5)
                x = self.op("conv_transpose")(x, weight, self.p(f"{name}.bias", here, scale=0.1), stride=factor)
            else:
                x = F.interpolate(x, scale_factor=factor, mode="nearest")
                x = self.conv(name, x, here, kernels[level], bias=True)
            if skips:
                x = torch.cat([x, kept[level]], 1)
            x = block(f"decoder.{level}", x, here, kernels[level])
            if supervise and level:
                outputs.append(self.conv(f"decoder.{level}.head", x, classes, (1, 1, 1), bias=True))
        outputs.append(self.conv("head", x, classes, (1, 1, 1), bias=True))
        return outputs[::-1]

    def classifier(self, x, classes, base, levels, blocks):
        kernel = (3, 3, 3)
        x = self.act("stem.act", self.norm("stem.norm", self.conv("stem.conv", x, base, kernel)))
        for level in range(levels):
            for i in range(blocks):
                stride = (2, 2, 2) if level and i == 0 else (1, 1, 1)
                x = self.residual(f"stage.{level}.block{i}", x, base << level, kernel, stride)
        x = x.mean(tuple(range(2, x.dim())))
        weight = self.p("head.weight", classes, x.shape[1], scale=x.shape[1] ** -0.5)
        return [F.linear(x, weight, self.p("head.bias", classes, scale=0.1))]

    def linear(self, x, classes):
        weight = self.p("head.weight", classes, *x.shape[1:], scale=x[0].numel() ** -0.5)
        bias = self.p("head.bias", classes, scale=0.1)
        return [F.linear(x.flatten(1), weight.flatten(1), bias)]


def loss_of(logits, labels, kind="dice-ce", batch=True, background=False, smooth=1e-5, weights=None, gamma=0.0,
            alpha=0.5, beta=0.5):
    """The named loss; label 255 counts nowhere."""
    classes = logits.shape[1]
    counted = (labels != IGNORE).unsqueeze(1)
    known = labels.where(labels != IGNORE, 0)
    one_hot = F.one_hot(known, classes).movedim(-1, 1) * counted
    number = counted.sum()
    if kind == "bce":
        return (F.binary_cross_entropy_with_logits(logits, one_hot.double(), reduction="none") * counted).sum() / (
            number * classes
        )
    softmax = logits.softmax(1) * counted
    if kind == "mse":
        return ((softmax - one_hot) ** 2).sum() / (number * classes)
    total = 0.0
    if kind in ("cross-entropy", "dice-ce"):
        weight = None if weights is None else torch.tensor(weights).double()
        total = total + F.cross_entropy(logits, labels, weight=weight, ignore_index=IGNORE)
    if kind == "focal":
        weight = torch.tensor(weights or [1.0] * classes).double()[known] * counted[:, 0]
        log = logits.log_softmax(1).gather(1, known.unsqueeze(1))[:, 0]
        total = total - (weight * (1 - log.exp()) ** gamma * log).sum() / weight.sum()
    if kind in ("dice", "dice-ce", "tversky"):
        axes = tuple(range(2, logits.dim())) if not batch else (0, *range(2, logits.dim()))
        overlap, predicted, truth = (softmax * one_hot).sum(axes), softmax.sum(axes), one_hot.sum(axes)
        wrong = 2 * alpha * (predicted - overlap) + 2 * beta * (truth - overlap)
        index = (2 * overlap + smooth) / (2 * overlap + wrong + smooth)
        total = total + 1 - (index if background else index[..., 1:]).mean()
    return total


def network(name, dims, size, channels, seed, build, whole=False, classes=3, samples=2, norm="instance",
            activation="leaky-relu", **loss):
    """Writes one network; `build` makes its outputs, finest first."""
    p = Parameters(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    x = torch.randn(samples, channels, *size, generator=generator).double().requires_grad_()
    noise = torch.rand(samples, *size, generator=generator)
    labels = (x[:, 0] * 0.8 + 1 + noise).clamp(0, 2.99).long()
    labels[noise > 0.95] = IGNORE
    if whole:
        labels = torch.arange(samples) % classes
    outputs = build(Net(dims, p, norm, activation), x)
    total, weights = 0.0, [0.5**i for i in range(len(outputs))]
    for weight, output in zip(weights, outputs):
        step = [fine // coarse for fine, coarse in zip(size, output.shape[2:])]
        coarse = labels[(slice(None), *(slice(None, None, s) for s in step))] if step else labels
        total = total + weight / sum(weights) * loss_of(output, coarse, **loss)
    total.backward()
    arrays = {"input": x, "labels": labels, "logits": outputs[0], "loss": total.reshape(1), "gradient/input": x.grad}
    arrays |= {f"parameter/{k}": v for k, v in (p.values | p.buffers).items()}
    arrays |= {f"gradient/{k}": v.grad for k, v in p.values.items()}
    if p.buffers:
        with torch.no_grad():
            arrays["eval/logits"] = build(Net(dims, p, norm, activation, training=False), x)[0]
    if dims == 1:  # lies in the file as slices of one row
        arrays = {k: v.unsqueeze(-2) if v.dim() > 2 else v for k, v in arrays.items()}
    write(name, arrays)


def losses():
    """The gradient of every loss on the same logits."""
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(2, 3, 4, 5, generator=generator).double() * 3
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    labels[torch.rand(2, 4, 5, generator=generator) > 0.9] = IGNORE
    arrays = {"logits": logits, "labels": labels}
    weights = [0.5, 1.0, 2.5]
    for name, settings in {
        "cross-entropy": {},
        "cross-entropy-weighted": {"kind": "cross-entropy", "weights": weights},
        "dice": {"batch": False, "background": True, "smooth": 1e-2},
        "dice-ce": {"weights": weights},
        "focal": {"gamma": 2.0, "weights": weights},
        "focal-half": {"kind": "focal", "gamma": 0.5},
        "tversky": {"alpha": 0.3, "beta": 0.7},
        "tversky-sample": {"kind": "tversky", "alpha": 0.8, "beta": 0.4, "batch": False, "smooth": 1.0},
        "bce": {},
        "mse": {},
    }.items():
        x = logits.clone().requires_grad_()
        value = loss_of(x, labels, **({"kind": name} | settings))
        value.backward()
        arrays |= {f"{name}/loss": value.reshape(1), f"{name}/gradient": x.grad}
    write("losses", arrays)


def optimizers():
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(50, generator=generator).double()
    gradients = torch.randn(100, 50, generator=generator).double() * torch.logspace(-4, 1, 50).double()
    arrays = {"start": start, "gradients": gradients}
    optim, decay = torch.optim, {"lr": 3e-3, "weight_decay": 0.01}
    for name, make, clip in [
        ("sgd", lambda v: optim.SGD(v, **decay), None),
        ("momentum", lambda v: optim.SGD(v, momentum=0.9, **decay), None),
        ("nesterov", lambda v: optim.SGD(v, momentum=0.9, nesterov=True, **decay), None),
        ("adam", lambda v: optim.Adam(v, **decay), None),
        ("adamw", lambda v: optim.AdamW(v, **decay), None),
        ("rmsprop", lambda v: optim.RMSprop(v, eps=1e-3, **decay), None),
        ("rmsprop-momentum", lambda v: optim.RMSprop(v, eps=1e-3, momentum=0.9, **decay), None),
        ("clip-norm", lambda v: optim.SGD(v, momentum=0.9, **decay),
         lambda v: torch.nn.utils.clip_grad_norm_(v, 5.0)),
        ("clip-value", lambda v: optim.SGD(v, momentum=0.9, **decay),
         lambda v: torch.nn.utils.clip_grad_value_(v, 0.5)),
    ]:
        value = start.clone().requires_grad_()
        optimizer = make([value])
        for step, gradient in enumerate(gradients):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - step / 100) ** 0.9
            value.grad = gradient.clone()
            if clip:
                clip([value])
            optimizer.step()
        arrays[name] = value
    write("optimizers", arrays)


def schedules():
    """Rates of 100 steps, ten an epoch, from 0.1."""
    from torch.optim import lr_scheduler as s

    def rates(make, steps=100, metric=None):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler, found = make(optimizer), []
        for step in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if metric is None:
                scheduler.step()
            elif (step + 1) % 10 == 0:
                scheduler.step(metric[step // 10]) if metric else scheduler.step()
        return torch.tensor(found, dtype=torch.float64)

    losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.8, 0.85, 0.85, 0.85, 0.7]
    write("schedules", {
        "constant": rates(lambda o: s.ConstantLR(o, factor=1.0)),
        "step": rates(lambda o: s.StepLR(o, 3, gamma=0.5), metric=[]),
        "exponential": rates(lambda o: s.ExponentialLR(o, 0.9), metric=[]),
        "cosine": rates(lambda o: s.CosineAnnealingLR(o, 100, eta_min=0.001)),
        "restarts": rates(lambda o: s.CosineAnnealingWarmRestarts(o, 25)),
        "lengthening": rates(lambda o: s.CosineAnnealingWarmRestarts(o, 10, T_mult=2), steps=70),
        "poly": rates(lambda o: s.PolynomialLR(o, total_iters=100, power=0.9)),
        "one-cycle": rates(lambda o: s.OneCycleLR(o, 0.1, total_steps=100, cycle_momentum=False)),
        "plateau": rates(lambda o: s.ReduceLROnPlateau(o, factor=0.3, patience=1, min_lr=0.02), metric=losses),
        "warmup": rates(lambda o: s.LinearLR(o, start_factor=0.1, total_iters=25)),
    })


def write(name, arrays):
    arrays = {k: np.ascontiguousarray(v.detach().numpy().astype(np.float32)) for k, v in arrays.items()}
    save_file(arrays, HERE / f"{name}.safetensors", metadata={"origin": f"PyTorch {torch.__version__}, float64, CPU"})


def plain(classes=3, **more):
    """A U-Net as the first releases had it: levels double the channels and halve every axis."""
    def build(net, x, base):
        levels = 3
        return net.unet(x, classes, [base << i for i in range(levels)], [(2, 2, 2)] * 2, [(3, 3, 3)] * 3, **more)

    return build


if __name__ == "__main__":
    unet = plain()
    network("unet2d", 2, (12, 20), 2, 1, lambda net, x: unet(net, x, 8), batch=True, background=False)
    network("unet3d", 3, (8, 12, 4), 1, 2, lambda net, x: unet(net, x, 4), batch=False, background=True)
    # Anisotropic strides and kernels, residual blocks, strides down, nearest up, supervision at all levels.
    network(
        "residual3d", 3, (4, 8, 8), 1, 3,
        lambda net, x: net.unet(
            x, 3, [4, 6, 8], [(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)], convolutions=1,
            encoder="residual", down="stride", up="nearest", supervise=True,
        ),
        norm="group2", activation="gelu",
    )
    network(
        "batch2d", 2, (8, 12), 1, 4,
        lambda net, x: net.unet(
            x, 3, [4, 8], [(1, 2, 2)], [(1, 3, 3), (1, 5, 3)], down="avg-pool", skips=False,
        ),
        norm="batch", activation="prelu", samples=3, kind="focal", gamma=2.0,
    )
    network(
        "classifier2d", 2, (8, 12), 2, 5, lambda net, x: net.classifier(x, 3, 4, 2, 1), whole=True, samples=4,
        norm="batch", activation="relu", kind="cross-entropy",
    )
    network(
        "classifier3d", 3, (4, 6, 4), 1, 6, lambda net, x: net.classifier(x, 2, 4, 2, 1), whole=True, classes=2,
        norm="instance", activation="tanh", kind="bce",
    )
    network("linear2d", 2, (5, 7), 2, 7, lambda net, x: net.linear(x, 2), whole=True, classes=2, samples=3, kind="mse")
    network(
        "sigmoid2d", 2, (4, 8), 1, 8,
        lambda net, x: net.unet(x, 3, [4, 4], [(1, 2, 2)], [(1, 3, 3)] * 2, convolutions=1, down="stride"),
        activation="sigmoid", kind="tversky", alpha=0.3, beta=0.7,
    )
    network(
        "unet1d", 1, (24,), 2, 9,
        lambda net, x: net.unet(x, 3, [4, 6, 8], [(1, 1, 2), (1, 1, 3)], [(1, 1, 5), (1, 1, 3), (1, 1, 3)]),
        activation="gelu", samples=3,
    )
    losses()
    optimizers()
    schedules()
