"""Balance of scikit-learn's StratifiedGroupKFold on cohorts of patients, for the tests of `split`.

scikit-learn 1.x, NumPy 2.x (versions are written into the file): python generate.py > balance.json
"""

import json

import numpy
import sklearn
from sklearn.model_selection import StratifiedGroupKFold


def imbalance(classes, groups, folds, seed):
    """Largest difference between the share of a class in a fold and in all cases."""
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    largest = 0.0
    for _, fold in split.split(classes, classes, groups):
        for value in numpy.unique(classes):
            share = (classes == value).mean()
            largest = max(largest, abs((classes[fold] == value).mean() - share))
    return largest


def main():
    random = numpy.random.default_rng(7)
    cohorts = []
    for patients, largest, weights, folds in [
        (60, 1, [0.5, 0.5], 5),
        (120, 4, [0.8, 0.2], 5),
        (200, 3, [0.6, 0.3, 0.1], 4),
        (400, 2, [0.9, 0.1], 10),
    ]:
        sizes = random.integers(1, largest + 1, patients)
        own = random.choice(len(weights), patients, p=weights)
        groups, classes = numpy.repeat(numpy.arange(patients), sizes), numpy.repeat(own, sizes)
        mean = numpy.mean([imbalance(classes, groups, folds, seed) for seed in range(10)])
        cohorts.append(
            {"sizes": sizes.tolist(), "classes": own.tolist(), "folds": folds, "imbalance": round(float(mean), 6)}
        )
    print(json.dumps({"scikit-learn": sklearn.__version__, "numpy": numpy.__version__, "cohorts": cohorts}))


main()
