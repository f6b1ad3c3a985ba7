"""Reference values for `pipe_metrics::agreement`: STAPLE and label voting of SimpleITK, kappa of scikit-learn.

Versions are written into the file: python generate.py > reference.json
"""

import itertools
import json

import numpy
import SimpleITK
import sklearn
from sklearn.metrics import cohen_kappa_score

UNDECIDED = 9


def raters():
    random = numpy.random.default_rng(3)
    z, y, x = numpy.mgrid[:6, :8, :9]
    body = (z - 2.6) ** 2 / 6 + (y - 3.4) ** 2 / 8 + (x - 4.2) ** 2 / 9 < 1
    truth = numpy.where(body, numpy.where(x > 4, 2, 1), 0).astype(numpy.uint8)
    maps = []
    for missed, added in [(0.05, 0.02), (0.2, 0.01), (0.02, 0.15), (0.1, 0.1)]:
        own, draw = truth.copy(), random.random(truth.shape)
        own[(truth > 0) & (draw < missed)] = 0
        wrong = (truth == 0) & (draw < added)
        own[wrong] = random.integers(1, 3, truth.shape)[wrong]
        maps.append(own)
    return maps


def main():
    maps = raters()
    images = [SimpleITK.GetImageFromArray(own) for own in maps]
    labels = []
    for label in (1, 2):
        staple = SimpleITK.STAPLEImageFilter()
        staple.SetForegroundValue(label)
        staple.SetMaximumIterations(1000)
        probability = SimpleITK.GetArrayFromImage(staple.Execute(images))
        labels.append(
            {
                "label": label,
                "probability": [float(f"{value:.8g}") for value in probability.ravel()],
                "sensitivity": list(staple.GetSensitivity()),
                "specificity": list(staple.GetSpecificity()),
            }
        )
    voting = SimpleITK.LabelVotingImageFilter()
    voting.SetLabelForUndecidedPixels(UNDECIDED)
    pairs = itertools.combinations(range(len(maps)), 2)
    print(
        json.dumps(
            {
                "SimpleITK": SimpleITK.Version_VersionString(),
                "scikit-learn": sklearn.__version__,
                "raters": [own.ravel().tolist() for own in maps],
                "labels": labels,
                "kappa": [(a, b, cohen_kappa_score(maps[a].ravel(), maps[b].ravel())) for a, b in pairs],
                "voting": SimpleITK.GetArrayFromImage(voting.Execute(images)).ravel().tolist(),
                "undecided": UNDECIDED,
            }
        )
    )


main()
