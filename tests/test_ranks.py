"""Processes that do one thing together: what they say to each other, and what one does alone."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from dr_cli import device
from dr_cli.errors import DrError, PartedError, UsageError
from dr_cli.labels import reading
from dr_cli.network.resnet import build_resnet
from dr_cli.network.together import SharedNorm
from dr_cli.ranks import ALONE, Ranks, is_spoken
from dr_cli.training.config import TrainConfig
from dr_cli.training.learner import Learner, draw_order, predict, readable_batches
from dr_cli.training.plan import make_plans, replace
from tests.builders import photographs
from tests.builders.together import start

CPU = torch.device("cpu")


# ------------------------------------------------- what each of two processes does, or one alone


def plan(data, ranks):
    config = TrainConfig(size=32, batch_size=16, epochs=1, val="test", optimizer="sgd", warmup=0)
    labels = reading.read(data)
    made = make_plans(config, labels, device.choose("cpu", "fp32"), cache=False)[0]
    return replace(made, ranks=ranks)


def normalise(ranks):
    """A norm over 11 pictures, of which the processes have 5 and 6."""
    torch.manual_seed(1)
    x, dy = torch.randn(11, 3, 4, 5) * 3 + 20, torch.randn(11, 3, 4, 5)
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    if not ranks.alone:
        norm.__class__ = SharedNorm
    x, dy = (torch.from_numpy(ranks.share(each.numpy())) for each in (x, dy))
    y = norm(x.requires_grad_())
    y.backward(dy)
    return {"y": y.detach(), "dx": x.grad, "weight": norm.weight.grad,
            "mean": norm.running_mean, "var": norm.running_var}  # fmt: skip


def learn(ranks, data):
    """What is predicted at first, the gradient of ten photographs, an epoch of two steps."""
    torch.manual_seed(0)
    ours = plan(data, ranks)
    learner = Learner(build_resnet("resnet18"), ours)
    order = draw_order(ours, 1)
    shares = list(readable_batches(ours, order, 16, ranks))
    logits = predict(learner.network, ours, ours.indices("test"), 4)
    learner.network.train()
    learner.step(1, *shares[-1], whole=10)
    gradient = [parameter.grad.clone() for parameter in learner.network.parameters()]
    figures = learner.train_once(1)
    return {"gradient": gradient, "figures": figures, "logits": logits,
            "seen": [index.tolist() for _, _, index in shares]}  # fmt: skip


def work(data, folder):
    ranks = Ranks.of_environment()
    with ranks.joined(CPU, 60):
        found = {
            "gathered": ranks.gather({"rank": ranks.rank}),
            "numbers": ranks.gather_numbers(ranks.rank, 7),
            "again": ranks.were_restarted(),
            "first": ranks.from_first(lambda: f"of {ranks.rank}"),
            "turn": ranks.in_turn(time.monotonic),
            "every": list(ranks.every("abcde")),
            "norm": normalise(ranks),
            "learned": learn(ranks, data),
        }
    torch.save(found, f"{folder}/{ranks.rank}.pt")


def part(fails):
    """The second process fails, or says nothing, while the first one waits for a second at most."""
    ranks = Ranks.of_environment()
    try:
        with ranks.joined(CPU, 60 if fails else 1):
            if ranks.rank and fails:
                raise DrError("a disk is full")
            if ranks.rank:
                time.sleep(60)
            ranks.gather(1)
    except (DrError, RuntimeError) as error:
        print(type(error).__name__, is_spoken(error), error, flush=True)


# ---------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, and what one finds alone."""
    folder = tmp_path_factory.mktemp("together")
    data = photographs.course(folder / "data", train=26, test=11)
    processes = start(f"tests.test_ranks:work({str(data)!r}, {str(folder)!r})")
    alone = {"norm": normalise(ALONE), "learned": learn(ALONE, data)}
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)], alone


def test_what_each_has_is_known_to_all(both):
    (one, two), _ = both
    assert one["gathered"] == two["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert one["numbers"] == two["numbers"] == [[0, 7], [1, 7]]
    assert one["first"] == two["first"] == "of 0"
    assert one["turn"] < two["turn"]
    assert not one["again"]
    assert (one["every"], two["every"]) == (["a", "c", "e"], ["b", "d"])


def test_a_shared_norm_is_that_of_the_whole_batch(both):
    pair, alone = both
    one, two = (each["norm"] for each in pair)
    whole = alone["norm"]
    for name in ("y", "dx"):
        assert len(one[name]) == 5
        torch.testing.assert_close(
            torch.cat([one[name], two[name]]), whole[name], rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(one["weight"] + two["weight"], whole["weight"], rtol=1e-4, atol=1e-4)
    for name in ("mean", "var"):
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0)
        torch.testing.assert_close(one[name], whole[name])


def test_two_processes_learn_what_one_learns(both):
    """The order of a batch alone moves gradients by 1e-5 of their length, and an epoch's loss by
    some hundred times as much: ten pictures of 32 pixels leave a norm few numbers."""
    pair, alone = both
    one, two, whole = *(each["learned"] for each in pair), alone["learned"]
    for a, b, c in zip(one["gradient"], two["gradient"], whole["gradient"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert (a - c).norm() < 1e-4 * c.norm()
    assert one["figures"] == two["figures"] == pytest.approx(whole["figures"], rel=1e-2)


def test_each_photograph_of_a_batch_is_one_processs(both):
    pair, alone = both
    one, two, whole = *(each["learned"]["seen"] for each in pair), alone["learned"]["seen"]
    assert [a + b for a, b in zip(one, two, strict=True)] == whole
    assert [len(part) for part in one] == [8, 5]


def test_an_evaluation_has_each_photograph_once_in_order(both):
    pair, alone = both
    one, two, whole = *(each["learned"]["logits"] for each in pair), alone["learned"]["logits"]
    assert len(whole) == 11
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, whole, rtol=1e-4, atol=1e-5)
    assert (one.argmax(1) == whole.argmax(1)).all()


def test_one_that_fails_says_why_and_the_others_say_nothing():
    said = [process.communicate(timeout=60)[0] for process in start("tests.test_ranks:part(True)")]
    assert "PartedError True another of the 2 processes is gone" in said[0]
    assert "DrError False a disk is full" in said[1]


def test_one_that_hangs_is_not_waited_for():
    first, second = start("tests.test_ranks:part(False)")
    assert (
        "PartedError False another of the 2 processes is gone" in first.communicate(timeout=50)[0]
    )
    assert second.poll() is None
    second.kill()


def test_alone_nothing_is_said_to_anybody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    ranks = Ranks.of_environment()
    with ranks.joined(CPU):
        assert ranks.alone
        assert ranks.gather("x") == ["x"]
        assert ranks.gather_numbers(3, 4) == [[3, 4]]
        assert ranks.from_first(lambda: 5) == ranks.in_turn(lambda: 5) == 5
        assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert not torch.distributed.is_initialized()
    assert PartedError("").exit_code == 1


def test_half_of_what_torchrun_tells_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="start them with torchrun"):
        Ranks.of_environment()


def test_processes_that_are_told_of_others_but_not_where_are_refused(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="MASTER_ADDR does not say where"):
        Ranks.of_environment()
