"""Prediction tables, and grades with probabilities that know something of them."""

import numpy as np
import pandas as pd

P = [f"p{k}" for k in range(5)]
HEADLINE = ["accuracy", "balanced_accuracy", "qwk", "macro_f1", "mean_absolute_error"]


def graded(n, seed=0, noise=0.8):
    """True grades with many zeros, and probabilities that know something: [N], [N, 5]."""
    rng = np.random.default_rng(seed)
    grade = rng.choice(5, n, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    seen = grade + noise * rng.normal(size=n)
    p = np.exp(-((np.arange(5) - seen[:, None]) ** 2))
    return grade, p / p.sum(axis=1, keepdims=True)


def table(patients, seed=0):
    """A prediction table as a run writes it: two alike eyes a patient."""
    rng = np.random.default_rng(seed)
    grade = np.repeat(rng.choice(5, patients, p=[0.4, 0.15, 0.2, 0.15, 0.1]), 2)
    seen = grade + 0.9 * rng.normal(size=2 * patients)
    p = np.exp(-((np.arange(5) - seen[:, None]) ** 2))
    p /= p.sum(axis=1, keepdims=True)
    number = np.arange(2 * patients)
    return pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in number],
            "grade": grade,
            "patient": [f"p{i // 2}" for i in number],
            "eye": np.where(number % 2, "right", "left"),
            **dict(zip(P, p.T, strict=True)),
            "predicted": p.argmax(axis=1),
        }
    )


def binary(rows):
    """The same table as a program writes it that only tells referable from not."""
    return rows[["path", "patient"]].assign(
        referable=(rows["grade"] >= 2).astype(int),
        referable_probability=rows[["p2", "p3", "p4"]].sum(axis=1),
    )
