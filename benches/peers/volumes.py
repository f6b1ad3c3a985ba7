#!/usr/bin/env python3
"""Times loading and preparing volumes in pipe and in its peers on the same cases, and prints how many times as long.

    cargo bench -p pipe-imaging --bench volumes --no-run      # prints the path of PIPE
    python benches/peers/volumes.py --pipe PIPE --data Task04_Hippocampus

Tasks: `load` image and label; `prepare` them as they are (RAS, box of what is not 0, voxels of 1 mm, which changes
nothing here, z-score); the same to 0.8×0.8×1.2 mm, `linear` and `cubic`. What is compared is CPU time of one process and
one thread per case, so that other work on the machine matters little; of pipe it includes the start of the process. Runs
are paired: in each round pipe and the peer run one after the other, and the ratio is that of the round. A peer that is not
installed is left out, and said so.

`rss` compares pipe's largest memory after 1,000 cases with that after 100.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# One thread everywhere, before anything starts its own.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[variable] = "1"

FINE_MM = (0.8, 0.8, 1.2)  # x, y, z


def cases(data: Path, count: int) -> list[tuple[str, str]]:
    images = sorted(path for path in (data / "imagesTr").glob("*.nii.gz") if not path.name.startswith("."))
    return [(str(path), str(data / "labelsTr" / path.name)) for path in images[:count]]


def nibabel_load():
    import nibabel
    import numpy

    return lambda image, label: [numpy.asanyarray(nibabel.load(path).dataobj) for path in (image, label)]


def simpleitk_load():
    import SimpleITK

    return lambda image, label: [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)) for path in (image, label)]


def torchio_prepare(spacing_mm):
    def make():
        import torch
        import torchio

        torch.set_num_threads(1)
        steps = torchio.Compose([torchio.ToCanonical(), torchio.Resample(spacing_mm), torchio.ZNormalization()])
        # No cropping: TorchIO has none to what is not 0, so this peer does less.
        return lambda image, label: steps(
            torchio.Subject(image=torchio.ScalarImage(image), label=torchio.LabelMap(label))
        )

    return make


def nnunet_prepare(spacing_mm):
    """`run_case` of nnU-Net's preprocessor, with a plan made here: z-score, order 3 for images, order 1 for labels."""

    def make():
        import torch

        torch.set_num_threads(1)
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        resampling = lambda is_seg, order: {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        configuration = {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [40, 56, 40],
            "median_image_size_in_voxels": [36.0, 50.0, 35.0],
            "spacing": list(spacing_mm)[::-1],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            # Of no use here, but asked for.
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {},
                "_kw_requires_import": [],
            },
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling(False, 3),
            "resampling_fn_seg_kwargs": resampling(True, 1),
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": resampling(False, 1),
        }
        plans = {
            "dataset_name": "Dataset004_Hippocampus",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"3d_fullres": configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": {}},
        }
        dataset = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
            "file_ending": ".nii.gz",
        }
        manager = PlansManager(plans)
        preprocessor = DefaultPreprocessor(verbose=False)
        chosen = manager.get_configuration("3d_fullres")
        return lambda image, label: preprocessor.run_case([image], label, manager, chosen, dataset)

    return make


PEERS = {
    "load": {"nibabel": nibabel_load, "SimpleITK": simpleitk_load},
    "prepare": {"nnU-Net": nnunet_prepare((1, 1, 1)), "TorchIO": torchio_prepare(1)},
    "linear": {"TorchIO": torchio_prepare(FINE_MM)},
    "cubic": {"nnU-Net": nnunet_prepare(FINE_MM)},
}


def run_pipe(arguments, task: str, count: int, out: str | None = None) -> tuple[float, float]:
    """CPU seconds and largest memory (MiB) of a run over `count` cases."""
    words = [arguments.pipe, task, str(arguments.data), str(count)] + ([out] if out else [])
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    told = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}")
    # Not `ru_maxrss`, which begins with that of this process.
    return used.ru_utime + used.ru_stime, int(told.split()[0]) / 1024


def times_of(peer, pairs) -> float:
    start = time.process_time()
    for pair in pairs:
        peer(*pair)
    return time.process_time() - start


def compare(arguments, task: str) -> None:
    pairs = cases(arguments.data, arguments.cases)
    if not pairs:
        sys.exit(f"{arguments.data} has no imagesTr/*.nii.gz")
    for name, make in PEERS[task].items():
        try:
            peer = make()
        except ImportError as error:
            print(f"{task:8} {name}: left out, {error}")
            continue
        times_of(peer, pairs[:2])
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours.append(run_pipe(arguments, task, len(pairs))[0] * 1e3 / len(pairs))
            theirs.append(times_of(peer, pairs) * 1e3 / len(pairs))
        ratios = sorted(other / own for own, other in zip(ours, theirs))
        print(
            f"{task:8} pipe {statistics.median(ours):6.2f} ms, {name} {statistics.median(theirs):6.2f} ms a case:"
            f" {statistics.median(ratios):.1f} times as long ({ratios[0]:.1f} to {ratios[-1]:.1f})",
            flush=True,
        )


def agree(arguments) -> None:
    """How far nnU-Net's cubic image is from pipe's, on the last case."""
    try:
        import nibabel
        import numpy

        peer = nnunet_prepare(FINE_MM)()
    except ImportError as error:
        print(f"agree    left out, {error}")
        return
    pairs = cases(arguments.data, arguments.cases)
    data, label, _ = peer(*pairs[-1])[:3]
    with tempfile.TemporaryDirectory() as out:
        run_pipe(arguments, "cubic", len(pairs), out)
        image = nibabel.load(f"{out}/image.nii").get_fdata().T
        ours = numpy.asanyarray(nibabel.load(f"{out}/label.nii").dataobj).T
    theirs, labels = numpy.asarray(data[0], dtype=float), numpy.asarray(label[0])
    if theirs.shape != image.shape:
        print(f"agree    shapes differ: {image.shape} and {theirs.shape}")
        return
    # nnU-Net normalises before it resamples, pipe after: one scale and shift apart.
    fitted = numpy.polyval(numpy.polyfit(theirs.ravel(), image.ravel(), 1), theirs)
    difference = numpy.abs(fitted - image).max()
    print(f"agree    cubic image within {difference:.1e} standard deviations of nnU-Net's, labels differ in "
          f"{(labels != ours).sum()} of {labels.size} voxels")


def memory(arguments) -> None:
    small, large = (run_pipe(arguments, "cubic", count)[1] for count in (100, 1000))
    print(f"rss      {small:.1f} MiB at 100 cases, {large:.1f} MiB at 1,000: {large / small:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", required=True, help="the bench binary `volumes`")
    parser.add_argument("--data", required=True, type=Path, help="a folder of the Decathlon with imagesTr and labelsTr")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("tasks", nargs="*", default=[*PEERS, "agree", "rss"])
    arguments = parser.parse_args()
    for task in arguments.tasks:
        {"agree": agree, "rss": memory}.get(task, lambda given: compare(given, task))(arguments)


if __name__ == "__main__":
    main()
