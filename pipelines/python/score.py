"""Scores the model on the held-out cases: Dice of the structure, one row a case."""

import csv
import json

import requirements

requirements.check()

from voxels import Case, cases, probability  # noqa: E402  (what it imports was checked first)


def dice(name: str, weights: list[float]) -> float:
    """Twice the common voxels over the voxels of both; NaN when both are empty. Voxels at the border are left out."""
    case = Case(name)
    both = found = true = 0
    for index in case.inner():
        is_found = probability(weights, case.features(index)) > 0.5
        is_true = case.label[index] > 0
        both += is_found and is_true
        found += is_found
        true += is_true
    return 2 * both / (found + true) if found + true else float("nan")


def main() -> None:
    with open("in/model/weights.json", encoding="utf-8") as file:
        weights = json.load(file)
    scores = [(name, dice(name, weights)) for name in cases("test")]
    with open("out/metrics/metrics.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "metric", "value"])
        rows.writerows((name, "dice", f"{score:.4f}") for name, score in scores)
    print(f"mean Dice of {len(scores)} held-out cases: {sum(score for _, score in scores) / len(scores):.3f}")


main()
