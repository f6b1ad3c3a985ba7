"""Fits a logistic regression to single voxels of the training cases: is this voxel part of the structure?"""

import csv
import json
import math
import os
import random

import requirements

requirements.check()

from voxels import Case, cases, probability  # noqa: E402  (what it imports was checked first)


def samples(name: str, count: int, draw: random.Random) -> list[tuple[tuple[float, ...], int]]:
    """Voxels of one case, half of them of the structure as far as there are so many."""
    case = Case(name)
    inner = case.inner()
    inside = [index for index in inner if case.label[index]]
    outside = [index for index in inner if not case.label[index]]
    chosen = draw.sample(inside, min(count // 2, len(inside))) + draw.sample(outside, min(count // 2, len(outside)))
    return [(case.features(index), int(case.label[index] > 0)) for index in chosen]


def main() -> None:
    with open(os.environ["PIPE_PARAMS"], encoding="utf-8") as file:
        params = json.load(file)
    draw = random.Random(int(params["seed"]))
    names = cases("train")
    voxels = [sample for name in names for sample in samples(name, int(params["voxels_per_case"]), draw)]
    print(f"{len(voxels)} voxels of {len(names)} cases")
    weights = [0.0] * len(voxels[0][0])
    with open("out/model/log.csv", "w", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        log.writerow(["epoch", "loss"])
        for epoch in range(int(params["epochs"])):
            draw.shuffle(voxels)
            loss = 0.0
            for features, target in voxels:
                found = probability(weights, features)
                loss -= math.log(found if target else 1 - found)
                step = float(params["rate"]) * (target - found) / (1 + epoch)
                weights = [weight + step * feature for weight, feature in zip(weights, features)]
            log.writerow([epoch, f"{loss / len(voxels):.6f}"])
            # Unbuffered, or it would be seen only at the end.
            print(f"epoch {epoch}: loss {loss / len(voxels):.4f}", flush=True)
    with open("out/model/weights.json", "w", encoding="utf-8") as file:
        json.dump(weights, file)


main()
