"""What is minimised: five losses over the same five probabilities, softmax(logits).

ce       −log p[grade]
mse      (E[grade] − grade)², E under the probabilities: what grading contests on this task
         were won with. It moves the mean of the distribution and leaves its spread alone
ordinal  Σ_k (P(grade ≤ k) − [grade ≤ k])², the ranked probability score (Epstein, J. Appl.
         Meteorol. 1969, 8(6):985-987), which is the squared earth mover's distance of Hou,
         Yu, Samaras (arXiv 1611.05916). Proper: least when the probabilities are true
ce+mse   their sum
focal    −(1 − p[grade])² log p[grade] (Lin et al., arXiv 1708.02002, γ = 2)
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.training.config import SMOOTHED

FOCUS = 2.0  # Lin et al.'s γ

# A loss an image: log-probabilities [N, 5], true grades [N] int64, smoothing -> [N], >= 0.
Rule = Callable[[Tensor, Tensor, float], Tensor]


def cross_entropy(log_p: Tensor, grade: Tensor, smoothing: float = 0.0) -> Tensor:
    return F.nll_loss(log_p, grade, reduction="none") * (1 - smoothing) - smoothing * log_p.mean(1)


def squared_error(log_p: Tensor, grade: Tensor, smoothing: float = 0.0) -> Tensor:
    scale = torch.arange(NUM_GRADES, device=log_p.device)
    return ((log_p.exp() * scale).sum(1) - grade).square()


def ranked_probability(log_p: Tensor, grade: Tensor, smoothing: float = 0.0) -> Tensor:
    scale = torch.arange(NUM_GRADES, device=log_p.device)
    below = scale[None, :] <= scale[:-1, None]  # [4, 5]: row k picks the grades up to k
    # no cumsum: CUDA has no deterministic one
    cumulative = (log_p.exp()[:, None, :] * below).sum(2)  # [N, 4]
    return (cumulative - (grade[:, None] <= scale[:-1]).float()).square().sum(1)


def both(log_p: Tensor, grade: Tensor, smoothing: float = 0.0) -> Tensor:
    return cross_entropy(log_p, grade, smoothing) + squared_error(log_p, grade)


def focal(log_p: Tensor, grade: Tensor, smoothing: float = 0.0) -> Tensor:
    surprise = cross_entropy(log_p, grade)
    return (1 - (-surprise).exp()).pow(FOCUS) * surprise


RULES: dict[str, Rule] = {
    "ce": cross_entropy,
    "ordinal": ranked_probability,
    "mse": squared_error,
    "ce+mse": both,
    "focal": focal,
}


class Loss(nn.Module):
    """logits [N, 5], grade [N] int64 -> scalar float32, the mean over the N images.

    Computed in float32 whatever the logits' precision. A plain mean, weights included: so the
    losses of two halves of a batch add up to the loss of the whole, on one device or on many.
    """

    weights: Tensor | None

    def __init__(self, rule: Rule, weights: Tensor | None, smoothing: float) -> None:
        super().__init__()
        self.rule = rule
        self.smoothing = smoothing
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, grade: Tensor) -> Tensor:
        each = self.rule(F.log_softmax(logits.float(), 1), grade, self.smoothing)  # [N]
        return each.mean() if self.weights is None else (each * self.weights[grade]).mean()


def make_loss(
    name: str, weights: Sequence[float] | NDArray | None = None, label_smoothing: float = 0.0
) -> Loss:
    """The loss of that name; move it to the logits' device with `.to(device)`.

    weights: what an image of each grade counts, [5], such as `balanced_weights`. They are used
    as they come. label_smoothing: in [0, 1), the share of the target that is spread over all
    five grades (Szegedy et al., arXiv 1512.00567). Raises UsageError on another name, or where
    smoothing would do nothing.
    """
    if name not in RULES:
        raise UsageError(f"--loss {name}: choose one of {', '.join(RULES)}")
    if label_smoothing and name not in SMOOTHED:
        raise UsageError(
            f"--label-smoothing does nothing with --loss {name}: "
            f"leave it out, or use --loss {' or '.join(SMOOTHED)}"
        )
    each = None if weights is None else torch.as_tensor(np.asarray(weights, np.float32))
    return Loss(RULES[name], each, label_smoothing)


def balanced_weights(grade_counts: Sequence[int] | NDArray) -> NDArray[np.float32]:
    """Weights under which all grades present count alike: [5] counts -> [5] float32.

    Their mean over the images counted is 1, so that the learning rate keeps its meaning; a
    grade without images gets 0.
    """
    counts = np.asarray(grade_counts, np.float64)
    share = counts.sum() / np.count_nonzero(counts)
    return np.divide(share, counts, out=np.zeros_like(counts), where=counts > 0).astype(np.float32)
