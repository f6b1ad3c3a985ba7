#!/usr/bin/env python3
"""Times Dice + HD95 + ASSD + NSD of pipe, DeepMind's surface-distance and MONAI on the same pairs, in CPU seconds.

    cargo build --release -p pipe-metrics --example score_pairs
    python3 benches/peers/metrics.py --labels DIR/labelsTr --ours target/release/examples/score_pairs

Pairs: labels of real cases against the same moved by a smooth random field (all labels but 0), and three ellipsoids of 256³
voxels against the same, moved. One thread everywhere. Rounds are interleaved, and of each the least time counts: noise only
ever adds. Values are compared with DeepMind's before anything is timed.

`--evaluate PIPE` also times a whole command on 20 pairs: `pipe evaluate` and, where it is installed, nnU-Net's
`nnUNetv2_evaluate_simple` (named by --nnunet).

Made with Python 3.11, NumPy 2.4.6, SciPy 1.17.1, nibabel 5.4.2, surface-distance 0.1, MONAI 1.6.1, torch 2.15.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

# surface-distance 0.1 is older than NumPy 2 and SciPy 1.15.
np.Inf, np.NaN = np.inf, np.nan
for name in ("filters", "morphology"):
    if not hasattr(ndimage, name):
        setattr(ndimage, name, ndimage)
import surface_distance  # noqa: E402


def warped(labels, seed, amplitude=1.5, smooth=4):
    rng = np.random.default_rng(seed)
    field = [ndimage.gaussian_filter(rng.standard_normal(labels.shape), smooth) for _ in range(3)]
    places = [g + amplitude * f / np.abs(f).max() for g, f in zip(np.indices(labels.shape), field)]
    return ndimage.map_coordinates(labels, places, order=0, mode="constant").astype(np.uint8)


def ellipsoids(moves):
    grid, labels = np.ogrid[:256, :256, :256], np.zeros((256,) * 3, np.uint8)
    shapes = (((90, 90, 100), (50, 40, 45)), ((170, 160, 140), (30, 45, 35)), ((128, 200, 60), (18, 14, 22)))
    for label, ((centre, axes), move) in enumerate(zip(shapes, moves), 1):
        inside = sum(((g - c - m) / a) ** 2 for g, c, m, a in zip(grid, centre, move, axes)) <= 1
        labels[inside] = label
    return labels


def deepmind(pair):
    reference, prediction, spacing, labels = pair
    values = []
    for label in labels:
        a, b = reference == label, prediction == label
        surfaces = surface_distance.compute_surface_distances(a, b, spacing)
        way = sum(np.sum(surfaces[d] * surfaces[s]) for d, s in
                  (("distances_gt_to_pred", "surfel_areas_gt"), ("distances_pred_to_gt", "surfel_areas_pred")))
        area = np.sum(surfaces["surfel_areas_gt"]) + np.sum(surfaces["surfel_areas_pred"])
        values.append((surface_distance.compute_dice_coefficient(a, b),
                       surface_distance.compute_robust_hausdorff(surfaces, 95),
                       way / area,
                       surface_distance.compute_surface_dice_at_tolerance(surfaces, 1.0)))
    return values


def monai(pair):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_surface_dice
    torch.set_num_threads(1)
    reference, prediction, spacing, labels = pair
    r, p = (torch.from_numpy(np.stack([x == 0] + [x == label for label in labels]))[None].float() for x in (reference, prediction))
    options = dict(include_background=False, spacing=spacing)
    return [compute_dice(p, r, include_background=False), compute_hausdorff_distance(p, r, percentile=95, **options),
            compute_average_surface_distance(p, r, symmetric=True, **options),
            compute_surface_dice(p, r, class_thresholds=[1.0] * len(labels), **options)]


def cpu_of(command, **options):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


class Ours:
    """Ours on a list of raw files; the start and the reading are subtracted."""

    def __init__(self, program, folder, pairs, repeats):
        self.program, self.repeats, self.list = program, repeats, folder / "list.txt"
        lines = []
        for at, (reference, prediction, spacing, labels) in enumerate(pairs):
            paths = [folder / f"{at}-{name}" for name in ("reference", "prediction")]
            for path, array in zip(paths, (reference, prediction)):
                path.write_bytes(array.tobytes())
            lines.append(" ".join(map(str, [*paths, *reference.shape, *spacing, *labels])))
        self.list.write_text("\n".join(lines) + "\n")

    def values(self):
        _, text = cpu_of([self.program, "1", self.list])
        return [[float(word) for word in line.split()] for line in text.splitlines()]

    def seconds(self):
        start, _ = cpu_of([self.program, "0", self.list])
        done, _ = cpu_of([self.program, str(self.repeats), self.list])
        return (done - start) / self.repeats


def cpu(work, pairs):
    start = time.process_time()
    for pair in pairs:
        work(pair)
    return time.process_time() - start


def compare(title, program, folder, pairs, repeats, rounds):
    ours = Ours(program, folder, pairs, repeats)
    theirs = [values for pair in pairs for values in deepmind(pair)]
    np.testing.assert_allclose(ours.values(), theirs, atol=1e-9)
    peers = {"surface-distance": deepmind, "MONAI": monai}
    for work in peers.values():
        work(pairs[0])
    times = {name: [] for name in ("pipe", *peers)}
    for _ in range(rounds):
        times["pipe"].append(ours.seconds())
        for name, work in peers.items():
            times[name].append(cpu(work, pairs))
    print(f"{title}: {len(pairs)} pairs, CPU ms a pair, least of {rounds} rounds")
    for name, seconds in times.items():
        print(f"  {name:<18}{1e3 * min(seconds) / len(pairs):10.3f}   {min(seconds) / min(times['pipe']):7.1f} ×")


def commands(pipe, nnunet, folder, pairs, rounds):
    reference, prediction = folder / "reference", folder / "prediction"
    for path, which in ((reference, 0), (prediction, 1)):
        path.mkdir()
        for at, pair in enumerate(pairs[:20]):
            nibabel.save(nibabel.Nifti1Image(pair[which].T, np.diag([*pair[2][::-1], 1.0])), path / f"case_{at:03}.nii.gz")
    work = {"pipe evaluate": [pipe, "evaluate", prediction, reference, "-o", folder / "ours", "--force"],
            "pipe evaluate, Dice and IoU only": [pipe, "evaluate", prediction, reference, "--metrics", "dice,iou",
                                                 "-o", folder / "ours", "--force"]}
    if nnunet:
        work["nnUNetv2_evaluate_simple"] = [nnunet, reference, prediction, "-l", "1", "2", "-np", "2", "-o", folder / "summary.json"]
    environment = os.environ | {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    times = {name: min(cpu_of(command, env=environment)[0] for _ in range(rounds)) for name, command in work.items()}
    print("the command on 20 pairs: CPU ms")
    for name, seconds in times.items():
        print(f"  {name:<34}{1e3 * seconds:10.1f}   {seconds / times['pipe evaluate']:7.1f} ×")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label maps in .nii.gz")
    parser.add_argument("--ours", type=Path, required=True, help="the example score_pairs, release build")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--evaluate", metavar="PIPE", help="the program pipe, release build")
    parser.add_argument("--nnunet", metavar="PROGRAM", help="nnUNetv2_evaluate_simple")
    arguments = parser.parse_args()

    pairs = []
    for at, path in enumerate(sorted(arguments.labels.glob("*.nii.gz"))[: arguments.cases]):
        image = nibabel.load(path)
        labels = np.ascontiguousarray(np.asanyarray(image.dataobj).astype(np.uint8).T)
        spacing = tuple(float(mm) for mm in image.header.get_zooms()[::-1])
        pairs.append((labels, warped(labels, at), spacing, [int(label) for label in np.unique(labels) if label]))
    big = [(ellipsoids([(0, 0, 0)] * 3), ellipsoids([(2, -1, 1), (0, 3, 0), (1, 1, -2)]), (1.0, 1.0, 1.5), [1, 2, 3])]
    with tempfile.TemporaryDirectory() as folder:
        for title, which, repeats, rounds in (("real cases", pairs, 20, arguments.rounds), ("256³, 3 labels", big, 5, 3)):
            (place := Path(folder) / str(len(which))).mkdir()
            compare(title, arguments.ours, place, which, repeats, rounds)
        if arguments.evaluate:
            commands(arguments.evaluate, arguments.nnunet, Path(folder), pairs, arguments.rounds)


if __name__ == "__main__":
    main()
