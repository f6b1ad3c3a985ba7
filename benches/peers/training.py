#!/usr/bin/env python3
"""Times a training step of pipe and of PyTorch on the same network and batch, and prints the ratios.

    cargo bench -p pipe-nn --bench training --no-run          # prints the path of PIPE
    python benches/peers/training.py --pipe PIPE

A step is forward, Dice and cross-entropy, backward, clipping of the gradient, update. Networks: `unet2d` (base 16, 3 levels,
batch 8, 64x64) and `unet3d` (base 8, 3 levels, batch 2, 32x48x32) with Adam, `nnunet` (nnU-Net 2's plan for the hippocampus:
32 to 256 channels, 40x56x40, batch 2, deep supervision) with SGD. Both sides have the same layers and the same number of
values; the script ends if they have not. PyTorch runs in its default layout and in channels_last, each in a process of its
own, and the faster one counts. Runs are paired: in each round all three run one after the other, and a ratio is that of the
medians of the steps of a round. Of a shared machine the CPU time says more; a thread that waits for another may spin on both
sides, so `--threads 1` tells the work alone. Memory is the largest of the whole process, and above what it held before the
first step. `--device cuda` runs both sides on the first CUDA device, PyTorch without TF32, which pipe does not use either; a step
ends when the device is done, and memory is then that of the processor alone.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time

WARM = 2


def network(name: str):
    import torch
    from torch import nn

    flat = name == "unet2d"
    conv, up, norm, pool = (
        (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d, nn.MaxPool2d)
        if flat
        else (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d, nn.MaxPool3d)
    )
    strided = name == "nnunet"
    features = {"unet2d": [16, 32, 64], "unet3d": [8, 16, 32], "nnunet": [32, 64, 128, 256]}[name]

    def block(cin, cout, stride=1):
        layers = []
        for step in (stride, 1):
            layers += [conv(cin, cout, 3, step, 1, bias=False), norm(cout, affine=True), nn.LeakyReLU(0.01, inplace=True)]
            cin = cout
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            pairs = list(zip([1, *features], features))
            self.down = nn.ModuleList(block(*pair, 2 if strided and level else 1) for level, pair in enumerate(pairs))
            self.pool = pool(2)
            self.up = nn.ModuleList(up(below, here, 2, 2) for here, below in zip(features, features[1:]))
            self.join = nn.ModuleList(block(2 * here, here) for here in features[:-1])
            heads = len(features) - 1 if strided else 1
            self.head = nn.ModuleList(conv(here, 3, 1) for here in features[:heads])

        def forward(self, x):
            skips = []
            for level, encode in enumerate(self.down):
                if level and not strided:
                    x = self.pool(x)
                x = encode(x)
                skips.append(x)
            outputs = []
            for level in reversed(range(len(self.up))):
                x = self.join[level](torch.cat([self.up[level](x), skips[level]], 1))
                if level < len(self.head):
                    outputs.append(self.head[level](x))
            return outputs[::-1]

    return UNet()


def torch_run(name: str, layout: str, steps: int, threads: int, device: str) -> None:
    """What the bench program of pipe prints, of PyTorch; runs in a process of its own."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    size, batch = {"unet2d": ([64, 64], 8), "unet3d": ([32, 48, 32], 2), "nnunet": ([40, 56, 40], 2)}[name]
    model = network(name)
    print(sum(value.numel() for value in model.parameters()), "values")
    images, labels = torch.rand(batch, 1, *size) * 2 - 1, torch.randint(0, 3, (batch, *size))
    model, images, labels = model.to(device), images.to(device), labels.to(device)
    if layout == "channels_last":
        memory_format = torch.channels_last if len(size) == 2 else torch.channels_last_3d
        model, images = model.to(memory_format=memory_format), images.to(memory_format=memory_format)
    if name == "nnunet":
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.99, nesterov=True, weight_decay=1e-5)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def loss_of(logits, labels):
        scores = logits.softmax(1)
        target = F.one_hot(labels, 3).movedim(-1, 1).float()
        axes = [0, *range(2, scores.dim())]
        overlap, total = (scores * target).sum(axes), (scores + target).sum(axes)
        return F.cross_entropy(logits, labels) + 1 - ((2 * overlap + 1e-5) / (total + 1e-5))[1:].mean()

    before = memory("VmRSS:")
    for _ in range(steps):
        start = time.process_time(), time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        outputs = model(images)
        weights = [0.5**index for index in range(len(outputs))]
        loss = 0
        for index, (weight, logits) in enumerate(zip(weights, outputs)):
            small = labels[(slice(None), *[slice(None, None, 2**index)] * len(size))]
            loss = loss + weight / sum(weights) * loss_of(logits, small)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
        loss.item()
        print(f"{(time.process_time() - start[0]) * 1e3:.3f} {(time.perf_counter() - start[1]) * 1e3:.3f}")
    print(before, memory("VmHWM:"))


def memory(name: str) -> int:
    with open("/proc/self/status") as status:
        return int(re.search(rf"{name}\s+(\d+) kB", status.read())[1])


class Run:
    """Medians of CPU and wall time of a step (ms), memory at most and above the start (MiB), number of values."""

    def __init__(self, words):
        told = subprocess.run(words, capture_output=True, text=True)
        if told.returncode != 0:
            sys.exit(f"{' '.join(words)} ended with {told.returncode}: {told.stderr}")
        lines = told.stdout.splitlines()
        self.values = int(lines[0].split()[0])
        steps = [tuple(map(float, line.split())) for line in lines[1 + WARM : -1]]
        self.cpu, self.wall = (statistics.median(column) for column in zip(*steps))
        before, most = map(int, lines[-1].split())
        self.most, self.grown = most / 1024, (most - before) / 1024


def compare(arguments, name: str) -> None:
    steps = arguments.steps or {"unet2d": 20, "unet3d": 12, "nnunet": 5}[name]
    common = [name, str(steps + WARM), str(arguments.threads), arguments.device]
    rounds = {"pipe": [], "default": [], "channels_last": []}
    loads = []
    for _ in range(arguments.rounds):
        loads.append(os.getloadavg()[0])
        rounds["pipe"].append(Run([arguments.pipe, *common]))
        for layout in ("default", "channels_last"):
            rounds[layout].append(Run([sys.executable, __file__, "--torch", layout, *common]))
    if len({run.values for runs in rounds.values() for run in runs}) != 1:
        sys.exit(f"{name}: the networks differ: {({key: runs[0].values for key, runs in rounds.items()})}")
    for what, unit in (("cpu", "ms"), ("wall", "ms"), ("most", "MiB"), ("grown", "MiB")):
        ours = [getattr(run, what) for run in rounds["pipe"]]
        peers = {key: [getattr(run, what) for run in rounds[key]] for key in ("default", "channels_last")}
        best = min(peers, key=lambda key: statistics.median(peers[key]))
        ratios = sorted(own / other for own, other in zip(ours, peers[best]))
        others = ", ".join(f"{key} {statistics.median(values):.1f}" for key, values in peers.items())
        print(
            f"{name:7} {what:5} pipe {statistics.median(ours):.1f} {unit}, PyTorch {others}:"
            f" {statistics.median(ratios):.2f} of {best} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
    print(f"{name:7} {rounds['pipe'][0].values:,} values, {arguments.threads} threads, load {min(loads):.1f} to {max(loads):.1f}")


def main() -> None:
    if sys.argv[1:2] == ["--torch"]:
        layout, name, steps, threads, device = sys.argv[2:]
        return torch_run(name, layout, int(steps), int(threads), device)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", required=True, help="the bench binary `training`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of each run, after two that do not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("networks", nargs="*", default=["unet2d", "unet3d", "nnunet"])
    arguments = parser.parse_args()
    for name in arguments.networks:
        compare(arguments, name)


if __name__ == "__main__":
    main()
