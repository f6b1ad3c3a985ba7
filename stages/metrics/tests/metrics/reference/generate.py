#!/usr/bin/env python3
"""Writes the reference values beside this file, from libraries: python3 generate.py

NumPy 2.4.6, SciPy 1.17.1, scikit-learn 1.9.1, statsmodels 0.15.0, MLstatkit 0.1.91, surface-distance 0.1 (Python 3.11).
"""

import json
import math
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy import ndimage, stats
from sklearn import calibration, metrics

HERE = Path(__file__).parent


def write(name, value):
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n")


def surfels():
    """Area at a corner by its code; bit 4z + 2y + x there is bit 7 - (4z + 2y + x) here."""
    np.Inf, np.NaN = np.inf, np.nan
    from surface_distance import lookup_tables
    reverse = lambda code, bits: int(f"{code:0{bits}b}"[::-1], 2)
    table = {}
    for spacing in ((1.0, 1.0, 1.0), (3.0, 1.0, 0.5)):
        areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
        lengths = lookup_tables.create_table_neighbour_code_to_contour_length(spacing[1:])
        table["x".join(map(str, spacing))] = dict(
            spacing_mm=spacing,
            areas=[areas[reverse(code, 8)] for code in range(256)],
            lengths=[lengths[reverse(code, 4)] for code in range(16)],
        )
    write("surfels.json", table)


def paired():
    rng = np.random.default_rng(6)
    # Rounded to 3 digits where ties are wanted.
    cases = {
        "no ties": rng.normal(0.3, 1, 12).tolist(),
        "ties": np.round(rng.normal(0.2, 0.6, 11), 0 + 1).tolist(),
        "ties and zeros": np.round(rng.normal(0.3, 1, 12), 0).tolist(),
        "all one way": [0.1, 0.2, 0.3, 0.4, 0.5],
        "many": rng.normal(0.2, 1, 130).tolist(),
        "many with ties": np.round(rng.normal(0.1, 1, 150), 1).tolist(),
        "many, clear": rng.normal(0.9, 1, 140).tolist(),
    }
    out = {}
    for name, values in cases.items():
        d = np.array(values)
        d = d[d != 0]
        if len(values) > 100:
            found = stats.wilcoxon(d, method="asymptotic", correction=False)
        else:
            # Every assignment of signs.
            found = stats.wilcoxon(d, method=stats.PermutationMethod(n_resamples=np.inf))
        ranks = stats.rankdata(np.abs(d))
        full = np.array(values)
        out[name] = dict(
            differences=values,
            p=float(found.pvalue),
            positive_ranks=float(ranks[d > 0].sum()),
            negative_ranks=float(ranks[d < 0].sum()),
            dz=float(full.mean() / full.std(ddof=1)) if len(values) > 1 else None,
        )
    write("paired.json", out)


def bootstrap():
    """Percentile intervals of the mean: from every possible resample where they can be listed, else from 200,000."""
    out = {}
    for name, values in {
        "three": [0.5, 0.8, 0.9],
        "skewed": [0.95, 0.93, 0.92, 0.9, 0.9, 0.88, 0.85, 0.8, 0.62, 0.3],
        "spread": np.random.default_rng(1).normal(5, 2, 40).round(3).tolist(),
    }.items():
        found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=200_000, rng=1)
        low, high = found.confidence_interval
        out[name] = dict(values=values, low=float(low), high=float(high), error=float(found.standard_error))
    write("bootstrap.json", out)


def classification():
    rng = np.random.default_rng(3)
    sets = {}
    for name, classes, count, digits in (("binary", 2, 60, 6), ("binary with ties", 2, 80, 1), ("four classes", 4, 90, 6),
                                         ("never predicted", 3, 30, 6)):
        truth = rng.integers(0, classes, count)
        logits = rng.normal(0, 1, (count, classes))
        logits[np.arange(count), truth] += 0.9
        if name == "never predicted":
            logits[:, 2] -= 9
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        p[:, :-1] = np.round(p[:, :-1], digits)
        p[:, -1] = np.round(1 - p[:, :-1].sum(1), digits + 2).clip(0, 1)
        sets[name] = (classes, truth, p)
    out = {}
    for name, (classes, truth, p) in sets.items():
        decision = p.argmax(1)
        onehot = np.eye(classes, dtype=int)[truth]
        confidence, right = (p[:, 1], truth == 1) if classes == 2 else (p.max(1), decision == truth)
        observed, mean = calibration.calibration_curve(right, confidence, n_bins=10)
        bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence)
        counts = np.bincount(bins, minlength=10)
        used = counts[counts > 0]
        labels = list(range(classes))
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, decision, labels=labels, zero_division=np.nan)
        weights = rng.integers(0, 3, len(truth))
        out[name] = dict(
            classes=classes,
            truth=truth.tolist(),
            probabilities=p.tolist(),
            weights=weights.tolist(),
            auc_roc=[float(metrics.roc_auc_score(onehot[:, c], p[:, c])) for c in labels],
            auc_pr=[float(metrics.average_precision_score(onehot[:, c], p[:, c])) for c in labels],
            auc_roc_weighted=[float(metrics.roc_auc_score(onehot[:, c], p[:, c], sample_weight=weights)) for c in labels],
            auc_pr_weighted=[float(metrics.average_precision_score(onehot[:, c], p[:, c], sample_weight=weights)) for c in labels],
            macro=float(metrics.roc_auc_score(truth, p, multi_class="ovr")) if classes > 2 else None,
            accuracy=float(metrics.accuracy_score(truth, decision)),
            balanced_accuracy=float(metrics.balanced_accuracy_score(truth, decision)),
            mcc=float(metrics.matthews_corrcoef(truth, decision)),
            mcc_weighted=float(metrics.matthews_corrcoef(truth, decision, sample_weight=weights)),
            precision=[None if math.isnan(v) else float(v) for v in precision],
            recall=[None if math.isnan(v) else float(v) for v in recall],
            f1=[None if math.isnan(v) else float(v) for v in f1],
            brier=float(metrics.brier_score_loss(truth, p[:, 1] if classes == 2 else p, labels=labels)),
            confusion=metrics.confusion_matrix(truth, decision, labels=labels).tolist(),
            bins=counts.tolist(),
            observed=observed.tolist(),
            confidence=mean.tolist(),
            ece=float((used * np.abs(observed - mean)).sum() / len(truth)),
        )
    write("classification.json", out)


def classifiers():
    """Two classifiers on the same cases: DeLong by MLstatkit, McNemar by statsmodels."""
    from MLstatkit import Delong_test
    from statsmodels.stats.contingency_tables import mcnemar
    rng = np.random.default_rng(8)
    out = {}
    for name, count, skill, digits in (("clear", 120, (0.2, 1.6), 6), ("alike", 150, (1.0, 1.1), 6), ("ties", 90, (0.4, 1.0), 1),
                                       ("few positives", 60, (0.5, 1.2), 6)):
        truth = (rng.random(count) < (0.1 if name == "few positives" else 0.45)).astype(int)
        common = rng.normal(0, 1, count)
        p = []
        for gain in skill:
            logit = 0.7 * common + rng.normal(0, 0.8, count) + gain * (2 * truth - 1)
            p.append(np.round(1 / (1 + np.exp(-logit)), digits))
        z, pvalue = Delong_test(truth, p[0], p[1], return_ci=False, return_auc=False)
        right = [(q > 0.5).astype(int) == truth for q in p]
        table = [[int((a & b).sum()) for b in (right[1], ~right[1])] for a in (right[0], ~right[0])]
        out[name] = dict(
            truth=truth.tolist(), first=p[0].tolist(), second=p[1].tolist(), z=float(z), p=float(pvalue),
            difference=float(metrics.roc_auc_score(truth, p[1]) - metrics.roc_auc_score(truth, p[0])),
            only_first=table[0][1], only_second=table[1][0], mcnemar=float(mcnemar(table, exact=True).pvalue),
        )
    write("classifiers.json", out)


def lesions():
    """Components by SciPy, covered ones counted one by one."""
    rng = np.random.default_rng(4)
    out = []
    for shape in ((6, 7, 8), (1, 12, 9), (5, 1, 9)):
        reference, prediction = (rng.random(shape) < share for share in (0.22, 0.2))
        rows = []
        for name, rank in (("faces", 1), ("corners", 3)):
            structure = ndimage.generate_binary_structure(3, rank)
            for overlap in (0.0, 0.5):
                counts = []
                for mask, other in ((reference, prediction), (prediction, reference)):
                    labels, number = ndimage.label(mask, structure)
                    shares = [other[labels == k].mean() for k in range(1, number + 1)]
                    found = sum(share > 0 and share >= overlap for share in shares)
                    counts += [int(found), int(number - found)]
                rows.append(dict(connectivity=name, overlap=overlap, counts=counts))
        out.append(dict(shape=shape, reference=reference.astype(int).ravel().tolist(),
                        prediction=prediction.astype(int).ravel().tolist(), expected=rows))
    write("lesions.json", out)


if __name__ == "__main__":
    print(np.__version__, scipy.__version__, sklearn.__version__)
    for part in (surfels, paired, bootstrap, classification, classifiers, lesions):
        part()
