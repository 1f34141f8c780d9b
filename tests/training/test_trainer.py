"""The loop's own laws, on a network that is real and photographs that are tiny."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from dr_cli import device, runs
from dr_cli.errors import DrError
from dr_cli.events import Observer
from dr_cli.labels import reading as labels
from dr_cli.network.resnet import build_resnet
from dr_cli.training import plan as planning
from dr_cli.training import trainer
from dr_cli.training.config import TrainConfig
from tests.builders import photographs


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = photographs.course(tmp_path_factory.mktemp("data") / "course", train=20, test=10)
    config = TrainConfig(
        size=32, batch_size=8, epochs=4, val="test", optimizer="sgd", augment="flip"
    )
    return planning.plan(config, labels.read(folder), device.choose("cpu", "fp32"), cache=False)


def learner(planned, observer=None, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(planned.config, **changes)
    planned = dataclasses.replace(planned, config=config)
    return trainer.Learner(build_resnet("resnet18"), planned, observer=observer or Observer())


def test_an_epoch_sees_every_photograph_once_in_an_order_of_its_own(planned):
    one = learner(planned)
    first, second = one._order(1), one._order(2)
    assert sorted(first) == sorted(second) == list(one.train_indices)
    assert list(first) != list(second)


def test_oversampling_draws_every_grade_as_often():
    class Skewed:
        config = TrainConfig(balance="oversample")
        grades = np.repeat([0, 1, 2, 3, 4], [900, 40, 30, 20, 10])
        train_indices = np.arange(1000)

    order = np.concatenate([trainer.Learner._order(Skewed, epoch) for epoch in range(20)])
    shares = np.bincount(Skewed.grades[order], minlength=5) / len(order)
    assert shares == pytest.approx([0.2] * 5, abs=0.012)  # four standard errors


def test_the_learning_rate_rises_then_falls_to_nothing(planned):
    one = learner(planned, lr=0.1, warmup=1.0)
    rates = [one._set_lr(position) for position in np.arange(0, 4, 1 / 3)]
    assert np.argmax(rates) == 3
    assert max(rates) == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(rates[:4]))
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))
    assert one._set_lr(4) == pytest.approx(0, abs=1e-9)
    constant = learner(planned, lr=0.1, warmup=0.0, schedule="constant")
    assert {constant._set_lr(position) for position in (0, 1, 3.9)} == {0.1}


def batch(planned, n=8):
    indices = planned.indices("train")[:n]
    pixels = torch.from_numpy(planned.dataset.crops(indices))
    return pixels, torch.from_numpy(planned.dataset.grades[indices]), torch.from_numpy(indices)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(planned):
    """With statistics fixed (eval): they are what parts do not share."""
    gradients = []
    for micro in (8, 3):
        one = learner(planned)
        one.network.eval()
        one.micro_batch = micro
        pixels, grade, _ = batch(planned)
        loss, hits = one._gradients(
            trainer.augment.normalise(pixels, one.planned.dataset.preprocessing), grade
        )
        gradients.append([p.grad.clone() for p in one.network.parameters()] + [loss, hits])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_out_of_memory_halves_the_parts_says_so_and_goes_on(planned):
    said = []

    class Listener(Observer):
        def note(self, text):
            said.append(text)

    one = learner(planned, Listener())
    real = one.forward

    def forward(inputs):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(inputs)

    one.forward = forward
    one.network.train()
    loss, _ = one._step(1, *batch(planned))
    assert math.isfinite(float(loss))
    assert one.micro_batch == 2
    assert len(said) == 2
    assert "2 at a time" in said[-1]

    def never(inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    one.forward = never
    with pytest.raises(DrError, match="--size"):
        one._step(1, *batch(planned))


def test_the_average_follows_the_weights(planned):
    one = learner(planned, ema=0.5)
    before = [p.detach().clone() for p in one.average]
    one._step(1, *batch(planned))
    for mean, start, now in zip(one.average, before, one.network.parameters(), strict=True):
        torch.testing.assert_close(mean, (start + now.detach()) / 2)
    judged = one.evaluated_network()
    torch.testing.assert_close(next(judged.parameters()).detach(), one.average[0])


def test_val_on_the_test_set_is_predicted_once(planned):
    one = learner(planned)
    asked = []
    real = one.predict
    one.predict = lambda split, progress: asked.append(split) or real(split, progress)
    found = one.predictions()
    assert asked == ["val"]
    assert np.array_equal(found["val"], found["test"])
    assert len(found["test"]) == 10


def test_patience_ends_a_run(planned):
    one = learner(planned, patience=2, epochs=50)
    one.best_epoch, one.rows = 3, [{}] * 4
    assert not one.done
    one.rows.append({})
    assert one.done


def test_a_loss_that_is_no_number_is_an_error_that_names_the_flag(planned):
    one = learner(planned)
    one.forward = lambda inputs: one.network(inputs) * float("nan")
    with pytest.raises(DrError, match="--lr"):
        one.epoch(lambda: None)


def test_profile_times_every_part(planned):
    torch.manual_seed(0)
    one = trainer.Learner(build_resnet("resnet18"), planned, profile=True)
    one.epoch(lambda: None)
    parts = {"data", "copy", "augment", "forward", "backward", "optimiser", "metrics", "evaluation"}
    assert set(one.clock.seconds) == parts
    assert all(seconds > 0 for seconds in one.clock.seconds.values())
    assert "backward" in "\n".join(one.clock.lines())


@pytest.mark.parametrize("loss", ["ce", "ordinal", "mse", "ce+mse", "focal"])
def test_every_loss_falls_on_photographs_that_can_be_told_apart(planned, loss):
    one = learner(planned, loss=loss, lr=0.01, augment="none")
    one.network.train()
    taken = [float(one._step(1, *batch(planned))[0]) for _ in range(12)]
    assert np.mean(taken[-3:]) < 0.7 * np.mean(taken[:2])


def test_fast_paths_learn_what_the_plain_loop_learns(planned):
    """Channels last, crops held on the device, fused optimiser, prefetching, batches in parts:
    losses of four steps agree with the loop one writes first to 1 in 100,000.

    In float64: batch statistics of eight images at 32 px double a rounding error at every step."""
    fast = learner(planned, augment="none", lr=0.001)
    fast.network.to(memory_format=torch.channels_last)
    fast.planned = dataclasses.replace(fast.planned, dataset=planned.dataset.subset(range(30)))
    fast.planned.dataset.keep_on(torch.device("cpu"))
    fast.network.double().train()
    fast.forward = lambda inputs: fast.network(inputs.double())
    fast.optimizer = trainer._optimizer(fast.network, fast.config)
    torch.manual_seed(0)
    network = build_resnet("resnet18").double().train()
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 5e-4},
            {"params": [p for p in network.parameters() if p.ndim <= 1]},
        ],
        lr=0.001, momentum=0.9, nesterov=True, fused=False, foreach=False,
    )  # fmt: skip
    for group in fast.optimizer.param_groups:
        group["lr"] = 0.001
    criterion = torch.nn.CrossEntropyLoss()
    for epoch in (1, 2):
        order = fast._order(epoch)[:16]
        for step, batch in enumerate(fast._batches(order)):
            chosen = order[8 * step : 8 * step + 8]
            inputs = torch.stack([planned.dataset[i][0] for i in chosen]).double()
            loss = criterion(network(inputs), torch.from_numpy(planned.dataset.grades[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert float(fast._step(epoch, *batch)[0]) == pytest.approx(loss.item(), rel=1e-5)


def test_compiling_on_a_cpu_is_done_and_warned_of(planned, tmp_path, monkeypatch):
    class Listener(Observer):
        def warning(self, text):
            heard.append(text)

    compiled, heard = [], []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    config = dataclasses.replace(planned.config, compile=True, epochs=1)
    run = runs.new_run(tmp_path, "run", "resnet18")
    trainer.train(dataclasses.replace(planned, config=config), run, observer=Listener())
    assert len(compiled) == 1
    assert [text for text in heard if text.startswith("--compile")]
