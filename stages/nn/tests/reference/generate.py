"""Writes the reference values of tests/runner/pytorch.rs: PyTorch in float64 on the CPU.

    python generate.py            # needs torch, numpy, safetensors; writes *.safetensors beside itself

Each U-Net file holds the parameters, the input, the labels, the logits, the loss, and the gradient of the loss with
respect to the input and to every parameter (`gradient/<name>`). The module below is written from the definition of the
network, not from the Rust code. `adamw.safetensors` holds 100 steps of torch.optim.AdamW on given gradients.
Everything is computed in float64 and rounded to float32 once, when written.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
IGNORE = 255


def build(dims, channels, classes, base, levels, generator):
    """Parameters by name, in the order and the layout of PyTorch."""
    parameters = {}

    def draw(name, *shape, scale=1.0, mean=0.0):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + mean
        parameters[name] = values.float().double()  # exactly representable in the file

    def block(name, cin, cout):
        for index, c in enumerate((cin, cout)):
            draw(f"{name}.conv{index}.weight", cout, c, *(3,) * dims, scale=(2 / (c * 3**dims)) ** 0.5)
            draw(f"{name}.norm{index}.weight", cout, scale=0.2, mean=1.0)
            draw(f"{name}.norm{index}.bias", cout, scale=0.1)

    for level in range(levels):
        block(f"encoder.{level}", channels if level == 0 else base << (level - 1), base << level)
    for level in reversed(range(levels - 1)):
        below, here = base << (level + 1), base << level
        draw(f"decoder.{level}.up.weight", below, here, *(2,) * dims, scale=below**-0.5)
        draw(f"decoder.{level}.up.bias", here, scale=0.1)
        block(f"decoder.{level}", 2 * here, here)
    draw("head.weight", classes, base, *(1,) * dims, scale=base**-0.5)
    draw("head.bias", classes, scale=0.1)
    return parameters


def forward(dims, levels, p, x):
    conv, up, pool = (
        (F.conv2d, F.conv_transpose2d, F.max_pool2d) if dims == 2 else (F.conv3d, F.conv_transpose3d, F.max_pool3d)
    )

    def block(name, x):
        for index in (0, 1):
            x = conv(x, p[f"{name}.conv{index}.weight"], padding=1)
            x = F.instance_norm(x, weight=p[f"{name}.norm{index}.weight"], bias=p[f"{name}.norm{index}.bias"], eps=1e-5)
            x = F.leaky_relu(x, 0.01)
        return x

    skips = []
    for level in range(levels):
        if level:
            skips.append(x)
            x = pool(x, 2)
        x = block(f"encoder.{level}", x)
    for level in reversed(range(levels - 1)):
        x = up(x, p[f"decoder.{level}.up.weight"], p[f"decoder.{level}.up.bias"], stride=2)
        x = block(f"decoder.{level}", torch.cat([x, skips.pop()], 1))
    return conv(x, p["head.weight"], p["head.bias"])


def loss_of(logits, labels, batch_dice, background, smooth=1e-5):
    """Mean cross-entropy plus one minus the mean soft Dice; label 255 counts nowhere."""
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    counted = (labels != IGNORE).unsqueeze(1)
    softmax = logits.softmax(1) * counted
    one_hot = F.one_hot(labels.where(labels != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * counted
    axes = tuple(range(2, logits.dim())) if not batch_dice else (0, *range(2, logits.dim()))
    dice = (2 * (softmax * one_hot).sum(axes) + smooth) / ((softmax + one_hot).sum(axes) + smooth)
    return entropy + 1 - (dice if background else dice[..., 1:]).mean()


def unet(name, dims, size, channels, base, batch_dice, background, seed):
    generator = torch.Generator().manual_seed(seed)
    levels, classes, samples = 3, 3, 2
    parameters = build(dims, channels, classes, base, levels, generator)
    x = torch.randn(samples, channels, *size, generator=generator).double()
    noise = torch.rand(samples, *size, generator=generator)
    labels = (x[:, 0] * 0.8 + 1 + noise).clamp(0, 2.99).long()
    labels[noise > 0.95] = IGNORE
    for value in (x, *parameters.values()):
        value.requires_grad_()
    logits = forward(dims, levels, parameters, x)
    loss = loss_of(logits, labels, batch_dice, background)
    loss.backward()
    arrays = {"input": x, "labels": labels, "logits": logits, "loss": loss.reshape(1), "gradient/input": x.grad}
    arrays |= {f"parameter/{k}": v for k, v in parameters.items()}
    arrays |= {f"gradient/{k}": v.grad for k, v in parameters.items()}
    write(name, arrays)


def adamw():
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(50, generator=generator).double()
    gradients = torch.randn(100, 50, generator=generator).double() * torch.logspace(-4, 1, 50).double()
    value = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([value], lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 100) ** 0.9
        value.grad = gradient.clone()
        optimizer.step()
    write("adamw", {"start": start, "gradients": gradients, "end": value})


def write(name, arrays):
    arrays = {k: np.ascontiguousarray(v.detach().numpy().astype(np.float32)) for k, v in arrays.items()}
    save_file(arrays, HERE / f"{name}.safetensors", metadata={"origin": f"PyTorch {torch.__version__}, float64, CPU"})


if __name__ == "__main__":
    unet("unet2d", 2, (12, 20), channels=2, base=8, batch_dice=True, background=False, seed=1)
    unet("unet3d", 3, (8, 12, 4), channels=1, base=4, batch_dice=False, background=True, seed=2)
    adamw()
