from itertools import pairwise

import numpy as np
import pytest
import torch

from dr_cli.errors import UsageError
from dr_cli.training import losses
from dr_cli.training.losses import balanced_weights, make_loss

ALL = tuple(losses.RULES)


def draw(n: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    logits = torch.tensor(random.normal(0, 3, (n, 5)), dtype=torch.float32)
    return logits, torch.tensor(random.integers(0, 5, n))


def by_hand(name: str, logits: torch.Tensor, grade: torch.Tensor, smoothing: float = 0.0):
    """The losses an image as their papers write them, in numpy's float64: [N]."""
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    target = np.eye(5)[grade]
    smooth = (1 - smoothing) * target + smoothing / 5
    ce = -(smooth * np.log(p)).sum(1)
    mse = (p @ np.arange(5) - grade.numpy()) ** 2
    true = p[np.arange(len(p)), grade]
    return {
        "ce": ce,
        "mse": mse,
        "ordinal": ((p.cumsum(1) - target.cumsum(1)) ** 2).sum(1),
        "ce+mse": ce + mse,
        "focal": -((1 - true) ** 2) * np.log(true),
    }[name]


def hot(grade: int, sureness: float) -> torch.Tensor:
    return sureness * torch.eye(5)[[grade]]


@pytest.mark.parametrize("name", ALL)
def test_values_against_the_formulas(name):
    logits, grade = draw()
    assert make_loss(name)(logits, grade).item() == pytest.approx(
        by_hand(name, logits, grade).mean(), rel=1e-5
    )


@pytest.mark.parametrize("name", losses.SMOOTHED)
def test_label_smoothing_flattens_the_target(name):
    logits, grade = draw(seed=1)
    found = make_loss(name, label_smoothing=0.1)(logits, grade).item()
    assert found == pytest.approx(by_hand(name, logits, grade, 0.1).mean(), rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(ALL) - set(losses.SMOOTHED)))
def test_label_smoothing_is_refused_where_it_would_do_nothing(name):
    with pytest.raises(UsageError, match=rf"--label-smoothing .*--loss {name}"):
        make_loss(name, label_smoothing=0.1)


@pytest.mark.parametrize("name", ALL)
def test_weights_count_images_by_their_grade(name):
    logits, grade = draw(seed=2)
    weights = np.array([0.2, 3, 1, 2, 5])
    wanted = (by_hand(name, logits, grade) * weights[grade]).mean()
    assert make_loss(name, weights)(logits, grade).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(name):
    """What accumulation after out-of-memory, and training on several GPUs, rely on."""
    logits, grade = draw(24, seed=3)
    loss = make_loss(name, [0.2, 3, 1, 2, 5])
    whole, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss(whole, grade).backward()
    for some in (slice(0, 7), slice(7, 24)):
        (loss(parts[some], grade[some]) * len(grade[some]) / len(grade)).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("grade", range(5))
def test_certainty_in_the_true_grade_is_the_least(name, grade):
    loss, target = make_loss(name), torch.tensor([grade])
    at = {guess: loss(hot(guess, 30), target).item() for guess in range(5)}
    assert at[grade] == pytest.approx(0, abs=1e-6)
    assert all(at[guess] > 0.5 for guess in range(5) if guess != grade)


@pytest.mark.parametrize("name", ["mse", "ordinal", "ce+mse"])
@pytest.mark.parametrize("grade", range(5))
def test_a_grade_further_off_costs_more(name, grade):
    loss, target = make_loss(name), torch.tensor([grade])
    order = sorted(range(5), key=lambda guess: abs(guess - grade))
    costs = [(abs(g - grade), loss(hot(g, 8), target).item()) for g in order]
    for (near, less), (far, more) in pairwise(costs):
        assert near == far or less < more


@pytest.mark.parametrize("name", ALL)
def test_a_step_down_the_gradient_raises_the_true_grade(name):
    """From an undecided start, for the grades at the ends, whose direction no loss may mistake."""
    for grade in (0, 4):
        logits = torch.zeros(1, 5, requires_grad=True)
        make_loss(name)(logits, torch.tensor([grade])).backward()
        assert logits.grad is not None
        step = -logits.grad[0]
        assert step[grade] > 0
        assert step[grade] == step.max()


@pytest.mark.parametrize("name", ["ce", "ordinal"])
def test_proper_losses_are_least_at_the_true_probabilities(name):
    truth = torch.tensor([0.45, 0.1, 0.25, 0.05, 0.15])
    grade = torch.arange(5)

    def expected(p: torch.Tensor) -> float:
        # weights 5·truth under a plain mean of five images: the expectation under truth
        return make_loss(name, (5 * truth).tolist())(p.log().expand(5, 5), grade).item()

    least = expected(truth)
    for other in torch.distributions.Dirichlet(torch.full((5,), 2.0)).sample((50,)):
        assert expected(0.9 * truth + 0.1 * other) > least


@pytest.mark.parametrize("name", ALL)
def test_half_precision_logits_are_computed_in_float32(name):
    logits, grade = draw(seed=4)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = make_loss(name)(half, grade)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, make_loss(name)(half.float(), grade), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_hopeless_logits_stay_finite(name):
    logits = torch.tensor([[200.0, 0, 0, 0, -200]], requires_grad=True)
    loss = make_loss(name)(logits, torch.tensor([4]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_no_operation_without_a_deterministic_form_on_a_gpu(name, monkeypatch):
    """torch refuses a floating cumsum on CUDA under --deterministic; here there may be no GPU."""
    monkeypatch.setattr(torch.Tensor, "cumsum", None)
    monkeypatch.setattr(torch, "cumsum", None)
    logits, grade = draw(4)
    assert make_loss(name)(logits, grade) > 0


def test_balanced_weights_make_the_grades_equal_and_keep_the_scale():
    counts = np.array([50, 10, 0, 30, 10])
    weights = balanced_weights(counts)
    assert weights * counts == pytest.approx([25, 25, 0, 25, 25])
    assert (weights * counts).sum() == pytest.approx(counts.sum())


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"--loss kappa.*ce, ordinal, mse"):
        make_loss("kappa")
