"""The loop's own laws, on a network that is real and photographs that are tiny."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from dr_cli import device, runs
from dr_cli.dataset.augment import normalise
from dr_cli.dataset.feeding import batches
from dr_cli.errors import DivergedError, DrError, UsageError
from dr_cli.events import NOTHING
from dr_cli.grades import Calibration
from dr_cli.labels import reading as labels
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.scoring import metrics
from dr_cli.training import learner as learning
from dr_cli.training import saved, trainer
from dr_cli.training.average import Average
from dr_cli.training.config import TrainConfig, choices
from dr_cli.training.learner import (
    Learner,
    draw_order,
    predict_splits,
    schedule_rate,
)
from dr_cli.training.optimizer import make_optimizer
from dr_cli.training.plan import make_plans
from tests.builders import photographs
from tests.builders.listener import Listener


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = photographs.course(tmp_path_factory.mktemp("data") / "course", train=20, test=10)
    config = TrainConfig(
        size=32, batch_size=8, epochs=4, val="test", optimizer="sgd", augment="flip"
    )
    return make_plans(config, labels.read(folder), device.choose("cpu", "fp32"), cache=False)[0]


def changed(planned, **changes):
    return dataclasses.replace(planned, config=dataclasses.replace(planned.config, **changes))


def learner(planned, observer=NOTHING, **changes):
    torch.manual_seed(0)
    return Learner(build_resnet("resnet18"), changed(planned, **changes), observer=observer)


def new_run(planned, folder):
    return runs.new_run(folder, "run", "resnet18", trainer.describe_run(planned))


def test_an_epoch_sees_every_photograph_once_in_an_order_of_its_own(planned):
    first, second = draw_order(planned, 1), draw_order(planned, 2)
    assert sorted(first) == sorted(second) == list(planned.indices("train"))
    assert list(first) != list(second)


def test_oversampling_draws_every_grade_as_often(planned):
    grades = np.repeat([0, 1, 2, 3, 4], [900, 40, 30, 20, 10])
    rows = pd.DataFrame({"split": "train", "grade": grades})
    skewed = dataclasses.replace(changed(planned, balance="oversample"), rows=rows)
    order = np.concatenate([draw_order(skewed, epoch) for epoch in range(20)])
    shares = np.bincount(grades[order], minlength=5) / len(order)
    assert shares == pytest.approx([0.2] * 5, abs=0.012)  # four standard errors


def test_a_last_single_photograph_is_left_out_whatever_is_resumed(planned):
    """25 photographs, 8 a step: three steps, resumed after the third there is none to take."""
    rows = pd.DataFrame({"split": "train", "grade": np.arange(25) % 5})
    assert len(draw_order(dataclasses.replace(planned, rows=rows), 1)) == 24


@pytest.mark.parametrize("train", [24, 25, 26])
def test_killed_after_any_step_a_run_goes_on_to_the_same_bits(tmp_path, train):
    """8 a step: nothing over, a single one (which takes no step), two over."""
    folder = photographs.course(tmp_path / "course", train=train, test=10)
    config = TrainConfig(size=32, batch_size=8, epochs=2, val="test", save_every=0, ema=0.9)
    plan = make_plans(config, labels.read(folder), device.choose("cpu", "fp32"), cache=False)[0]
    steps = 4 if train == 26 else 3
    assert trainer.outline(plan).steps_per_epoch == steps
    states = []

    def finish(one, keep=lambda: None):
        while not one.done:
            one.epoch(keep)
        timed = {"seconds", "images_per_second"}
        rows = [{k: v for k, v in row.items() if k not in timed} for row in one.rows]
        return rows, one.best_epoch, [*one.network.state_dict().values(), *one.average.values]

    one = learner(plan)
    rows, best, weights = finish(one, lambda: states.append(copy.deepcopy(one.state())))
    assert [state["part"]["step"] for state in states] == [*range(1, steps + 1)] * 2
    for state in states:
        other = learner(plan)
        other.load(state)
        mine, kept, theirs = finish(other)
        assert (mine, kept) == (rows, best)
        assert all(torch.equal(a, b) for a, b in zip(weights, theirs, strict=True))


def test_the_learning_rate_rises_then_falls_to_nothing():
    config = TrainConfig(lr=0.1, warmup=1.0, epochs=4)
    rates = [schedule_rate(config, position, 3) for position in np.arange(0, 4, 1 / 3)]
    assert np.argmax(rates) == 3
    assert max(rates) == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(rates[:4]))
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))
    assert schedule_rate(config, 4, 3) == pytest.approx(0, abs=1e-9)
    constant = TrainConfig(lr=0.1, warmup=0.0, schedule="constant", epochs=4)
    assert {schedule_rate(constant, position, 3) for position in (0, 1, 3.9)} == {0.1}


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
        loss, hits = one.add_gradients(normalise(pixels, planned.dataset.preprocessing), grade)
        gradients.append([p.grad.clone() for p in one.network.parameters()] + [loss, hits])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_out_of_memory_halves_the_parts_says_so_and_goes_on(planned):
    heard = Listener()
    one = learner(planned, heard)
    real = one.forward

    def forward(inputs):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(inputs)

    one.forward = forward
    one.network.train()
    loss, _ = one.step(1, *batch(planned))
    assert math.isfinite(float(loss))
    assert one.micro_batch == 2
    assert len(heard.notes) == 2
    assert "2 at a time" in heard.notes[-1]

    def never(inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    one.forward = never
    with pytest.raises(DrError, match="--size"):
        one.step(1, *batch(planned))


def test_out_of_memory_on_a_cpu_is_told_by_torch_in_other_words_and_in_evaluation_too(
    planned, monkeypatch
):
    real, asked = learning.logits_of, []

    def limited(network, ready, *rest):
        sizes = []

        def watch():
            for one in ready:
                sizes.append(len(one[2]))
                if len(one[2]) > 2:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")
                yield one

        asked.append(sizes)
        return real(network, watch(), *rest)

    one = learner(planned)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "logits_of", limited)
        found = learning.predict(one.network, planned, planned.indices("test"), 8)
    assert [sizes[0] for sizes in asked] == [8, 4, 2]
    wanted = learning.predict(one.network, planned, planned.indices("test"), 8)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    def faulty(inputs):
        raise RuntimeError("another fault")

    one.forward = faulty
    with pytest.raises(RuntimeError, match="another"):
        one.step(1, *batch(planned))


def test_a_loss_that_is_no_number_stops_at_its_step_and_names_the_photographs(planned, tmp_path):
    """The third step's; what was saved after the second stays."""
    heard = Listener()
    one = learner(planned, heard, save_every=0)
    real, steps, saved = one.loss.forward, itertools.count(1), []
    one.loss.forward = lambda *given: real(*given) * (math.nan if next(steps) == 3 else 1)
    with pytest.raises(DrError, match=r"the loss is nan in epoch 1, after a batch with .*--lr"):
        one.epoch(lambda: saved.append(one.part.step))
    assert saved == [1, 2]
    named = [planned.dataset.paths[k] for k in draw_order(planned, 1)[16:]]
    assert heard.warnings == [f"the loss is nan after: {', '.join(named)}"]


def test_weights_that_are_no_numbers_are_never_saved(planned):
    """The last step's gradient is none, though its loss is a number; what an earlier dr saved so
    is refused, as it would meet the same for ever."""
    one = learner(planned)
    real, steps, saved = one.optimizer.step, itertools.count(1), []

    def step(*given):
        if next(steps) == one.steps:
            one.network.fc.weight.grad[0, 0] = math.inf
        return real(*given)

    one.optimizer.step = step
    with pytest.raises(DivergedError, match=r"weights are no numbers any more in epoch 1; none"):
        one.epoch(lambda: saved.append(one.part.step))
    assert not saved
    with pytest.raises(UsageError, match="weights that are no numbers"):
        learner(planned).load(one.state())


def spoil_shape(state):
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2)


def spoil_weights(state):
    del state["network"]["fc.weight"]


SPOILT = {
    "a moment of another shape": spoil_shape,
    "a weight that is not there": spoil_weights,
    "moments of another optimiser": lambda state: state["optimizer"]["state"][3].pop("exp_avg"),
    "rows of text": lambda state: state["rows"].append({"epoch": "one"}),
    "a step of text": lambda state: state["part"].update(step="1"),
    "rows of nothing": lambda state: state.update(rows=None),
    "no best": lambda state: state.pop("best"),
}


def test_a_last_pt_of_something_else_is_refused_in_a_line(planned, tmp_path):
    """A moment shorter than its weight had the optimiser read and write behind its end."""
    one = learner(planned, optimizer="adamw")
    one.step(1, *batch(planned))
    whole, path = copy.deepcopy(one.state()), tmp_path / "last.pt"
    one.load(whole)
    for spoil in SPOILT.values():
        state = whole | {key: copy.copy(whole[key]) for key in ("network", "part", "rows")}
        moments = {key: dict(value) for key, value in whole["optimizer"]["state"].items()}
        state["optimizer"] = whole["optimizer"] | {"state": moments}
        spoil(state)
        torch.save(state, path)
        with pytest.raises(UsageError, match=r"last.pt is not as dr train wrote it \(.*\): train"):
            one.load(saved.read(path))
    one.load(whole)


def lose(plan, split, count=1):
    """Photographs of a split are deleted, as their paths."""
    paths = [plan.dataset.paths[k] for k in plan.indices(split)[:count]]
    for path in paths:
        (plan.labels.root / path).unlink()
    return paths


@pytest.fixture
def fresh(tmp_path):
    """A plan whose photographs are decoded whenever they are asked for, and may be lost."""
    folder = photographs.course(tmp_path / "course", train=20, test=10)
    config = TrainConfig(size=32, batch_size=8, epochs=2, val="0.3", max_bad=0.1)
    return make_plans(config, labels.read(folder), device.choose("cpu", "fp32"), cache=False)[0]


def test_a_photograph_that_is_lost_in_mid_run_is_left_out_and_listed(fresh, tmp_path):
    lost = []

    def epoch(row, kept):
        if row["epoch"] == 1:
            lost.extend(lose(fresh, "train") + lose(fresh, "val") + lose(fresh, "test"))

    heard, run = Listener(epoch=epoch), new_run(fresh, tmp_path / "runs")
    trainer.fill_run(fresh, run, observer=heard)
    assert run.finished
    listed = run.splits().set_index("path").loc[lost]
    assert listed["split"].isna().all()
    assert listed["left_out_of"].tolist() == ["train", "val", "test"]
    assert (listed["reason"] == "lost while it trained: no such file").all()
    (said,) = [text for text in heard.warnings if "became unreadable" in text]
    assert said.startswith("3 photographs")
    for split in ("val", "test"):
        told = run.predictions(split)["path"]
        assert len(told) == len(fresh.placed(split)) - 1
        assert not set(told) & set(lost)
    again = make_plans(
        fresh.config, fresh.labels, fresh.processor, cache=False, begun=run.splits()
    )[0]
    for split in ("train", "val", "test"):  # where they stood, whatever is lost since
        assert again.placed(split).tolist() == fresh.placed(split).tolist()
    assert list(draw_order(again, 2)) == list(draw_order(fresh, 2))


def test_above_max_bad_it_stops_and_says_so(fresh, tmp_path):
    def epoch(row, kept):
        lose(fresh, "train", 4)

    run = new_run(fresh, tmp_path / "runs")
    with pytest.raises(DrError, match=r"4 of 30 photographs can be read no more.*--max-bad 0\.1"):
        trainer.fill_run(fresh, run, observer=Listener(epoch=epoch))
    assert run["last.pt"].is_file()
    assert not run.finished
    assert run.splits()["reason"].notna().sum() == 4


def test_the_average_follows_the_weights(planned):
    one = learner(planned, ema=0.5)
    seen = []
    for _ in range(3):
        one.step(1, *batch(planned))
        seen.append({k: v.detach().clone() for k, v in one.network.state_dict().items()})
    share = np.array([1, 2, 4]) / 7  # halved with each step back, and nothing of the start
    judged = one.average.build(one.network).state_dict()
    for name, value in judged.items():
        if value.is_floating_point():  # weights, and batch statistics with them
            wanted = sum(float(w) * step[name] for w, step in zip(share, seen, strict=True))
            torch.testing.assert_close(value, wanted)


def test_an_average_kept_by_a_run_of_before_is_gone_on_with(planned):
    one = learner(planned, ema=0.5)
    one.step(1, *batch(planned))
    weights = [p.detach() + 1 for p in one.network.parameters()]
    old = one.state() | {"average": weights}
    del old["average_steps"]
    other = learner(planned, ema=0.5)
    other.load(old)
    torch.testing.assert_close(other.average.values[: len(weights)], weights)
    torch.testing.assert_close(other.average.values[-1], [*one.network.buffers()][-2])
    other.step(1, *batch(planned))
    now = next(other.network.parameters()).detach()
    torch.testing.assert_close(other.average.values[0], (weights[0] + now) / 2)


def test_val_on_the_test_set_is_predicted_once(planned):
    asked = []
    found = predict_splits(build_resnet("resnet18"), planned, 8, lambda *told: asked.append(told))
    assert asked == [("val", 8, 10), ("val", 10, 10)]
    assert np.array_equal(found["val"], found["test"])
    assert len(found["test"]) == 10


def test_a_later_epoch_is_kept_unless_it_is_worse_by_more_than_chance(planned):
    one, true = learner(planned), planned.grades("val")

    def weigh(predicted):
        qwk = metrics.quadratic_weighted_kappa(true, predicted)
        kept = one.weigh(qwk, np.eye(5, dtype=np.float32)[predicted])
        one.rows.append({})
        return kept

    near = np.where(np.arange(len(true)) % 3, true, np.clip(true + 1, 0, 4))
    nearer = np.where(np.arange(len(true)) % 5, true, np.clip(true + 1, 0, 4))
    assert weigh(near)
    assert weigh(nearer)
    assert weigh(near)  # ten photographs do not tell the two apart
    assert not weigh(np.zeros_like(true))
    assert not one.weigh(None, None)
    assert one.peak_epoch == 2


def test_the_least_that_is_kept_of_a_run_of_before_is_its_best(planned):
    """Its `best` was the QWK and, negative, the loss, under which nearly every epoch is above."""
    one = learner(planned)
    old = one.state() | {"best_epoch": 2, "best": [0.8, -1.2]}
    del old["peak_epoch"]
    one.load(old)
    assert not one.weigh(0.1, None)
    assert one.weigh(0.8, None)


def test_of_validation_of_one_grade_an_epoch_without_a_mistake_is_the_best():
    zeros = np.zeros(6, np.int64)
    right, wrong = np.eye(5, dtype=np.float32)[[zeros, [0, 0, 0, 0, 0, 3]]]
    rows = [{"epoch": 1} | learning.score("val", logits, zeros, "ce") for logits in (right, wrong)]
    assert [row["val_qwk"] for row in rows] == [None, 0]
    perfect, other = map(learning.judge, rows)
    assert perfect > other


def test_patience_ends_a_run(planned):
    one = learner(planned, patience=2, epochs=50)
    one.peak_epoch, one.rows = 3, [{}] * 4
    assert not one.done
    one.rows.append({})
    assert one.done


def test_a_loss_that_is_no_number_ends_it_before_anything_is_predicted(planned):
    heard = Listener()
    one = learner(planned, heard)
    one.forward = lambda inputs: one.network(inputs) * float("nan")
    with pytest.raises(DrError, match="--lr"):
        one.epoch()
    assert heard.batches == []


@pytest.mark.parametrize("good", [2, None])
def test_an_epoch_whose_predictions_are_no_numbers_is_never_kept(
    planned, tmp_path, monkeypatch, good
):
    epochs = itertools.count(1)

    def broken(network, plan, *rest):
        found = predict_splits(network, plan, *rest)
        spoilt = good is None or next(epochs) < good
        return {split: values * np.nan if spoilt else values for split, values in found.items()}

    monkeypatch.setattr(learning, "predict_splits", broken)
    heard, run = Listener(), new_run(planned, tmp_path)
    if good is None:
        with pytest.raises(DrError, match="--lr"):
            trainer.fill_run(changed(planned, epochs=2), run, observer=heard)
        assert not run.finished
        assert not run[runs.MODEL].exists()
    else:
        trainer.fill_run(changed(planned, epochs=2), run, observer=heard)
        assert run.finished
        assert runs.read_model(run[runs.MODEL])[1].epoch == 2
    said = [text for text in heard.warnings if "is not kept" in text]
    assert len(said) == (2 if good is None else 1)


def test_the_average_is_built_once_an_epoch(planned, monkeypatch):
    built = []
    real = Average.build
    monkeypatch.setattr(Average, "build", lambda *given: built.append(1) or real(*given))
    plan = changed(planned, ema=0.5, val="0.5")
    rows = plan.rows.assign(split=plan.rows["split"].where(np.arange(30) % 4 != 0, "val"))
    epoch = learner(dataclasses.replace(plan, rows=rows)).epoch()
    assert built == [1]
    assert epoch.kept
    assert {"val_qwk", "test_qwk"} <= epoch.row.keys()


def test_profile_times_every_part(planned):
    torch.manual_seed(0)
    one = Learner(build_resnet("resnet18"), planned, profile=True)
    one.epoch()
    parts = {"data", "copy", "augment", "forward", "backward", "optimiser", "metrics", "evaluation"}
    assert set(one.clock.seconds) == parts
    assert all(seconds > 0 for seconds in one.clock.seconds.values())
    assert "backward" in "\n".join(one.clock.lines())


@pytest.mark.parametrize("loss", choices("loss"))
def test_every_loss_falls_on_photographs_that_can_be_told_apart(planned, loss):
    one = learner(planned, loss=loss, lr=0.01, augment="none")
    one.network.train()
    taken = [float(one.step(1, *batch(planned))[0]) for _ in range(12)]
    assert np.mean(taken[-3:]) < 0.7 * np.mean(taken[:2])


def test_fast_paths_learn_what_the_plain_loop_learns(planned):
    """Channels last, crops held on the device, fused optimiser, prefetching, batches in parts:
    losses of four steps agree with the loop one writes first to 1 in 100,000.

    In float64: batch statistics of eight images at 32 px double a rounding error at every step."""
    fast = learner(planned, augment="none", lr=0.001)
    fast.network.to(memory_format=torch.channels_last)
    fast.plan = dataclasses.replace(fast.plan, dataset=planned.dataset.subset(range(30)))
    fast.plan.dataset.keep_on(torch.device("cpu"))
    fast.network.double().train()
    fast.forward = lambda inputs: fast.network(inputs.double())
    fast.optimizer = make_optimizer(fast.network, fast.config)
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
        order = draw_order(planned, epoch)[:16]
        for step, batch in enumerate(batches(fast.plan.dataset, order, 8)):
            chosen = order[8 * step : 8 * step + 8]
            inputs = torch.stack([planned.dataset[i][0] for i in chosen]).double()
            loss = criterion(network(inputs), torch.from_numpy(planned.dataset.grades[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert float(fast.step(epoch, *batch)[0]) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("seconds", "steps", "count"), [(0.1, 3, 8), (4.0, 1, 4), (30.0, 1, 2), (1.5, 1, 8)]
)
def test_a_dry_run_times_as_much_as_its_budget_allows_and_says_what(
    planned, monkeypatch, seconds, steps, count
):
    """seconds: of two photographs; a whole batch of eight takes four times as long."""
    now, heard = [0.0], Listener()

    def step(self, epoch, pixels, grade, index):
        now[0] += seconds * len(pixels) / 2
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr("dr_cli.training.trainer.time.perf_counter", lambda: now[0])
    told = trainer.estimate_run(planned, budget=20.0, observer=heard)
    assert told["measured"] == {"steps": steps, "batch_size": count}
    assert told["seconds_per_epoch"] == pytest.approx(seconds / 2 * 20, abs=0.05)
    assert (told["memory_bytes"] is None) == (count < 8)
    assert now[0] <= max(20, seconds)
    assert heard.steps[0] == ("timing steps of 2 photographs", 0, None)


def test_compiling_on_a_cpu_is_done_and_warned_of(planned, tmp_path, monkeypatch):
    compiled, heard = [], Listener()
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    run = new_run(planned, tmp_path)
    trainer.fill_run(changed(planned, compile=True, epochs=1), run, observer=heard)
    assert len(compiled) == 1
    assert [text for text in heard.warnings if text.startswith("--compile")]
    assert heard.plans[0].steps_per_epoch == 3


@pytest.mark.parametrize(("theirs", "warned"), [("evened", 0), ("kept", 1)])
def test_a_start_that_knows_another_light_is_warned_of(tmp_path, theirs, warned):
    way = Preprocessing(32, illumination=theirs).to_dict()
    record = runs.ModelRecord("resnet18", way, Calibration(), 1)
    runs.Run(tmp_path).save_model(build_resnet("resnet18").state_dict(), record)
    listener = Listener()
    trainer.start_network(TrainConfig(weights=str(tmp_path)), listener)
    assert len(listener.warnings) == warned
    assert all("--illumination kept" in text for text in listener.warnings)
