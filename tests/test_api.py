"""The public names: what their docstrings promise is so, on tiny pictures."""

import doctest
import re
import textwrap

import numpy as np
import pytest
import torch

import dr_cli
from dr_cli import (
    ConfusionMatrix,
    FundusDataset,
    Grader,
    Setting,
    TrainConfig,
    build_resnet,
    evaluate,
    train,
)
from dr_cli.errors import UsageError
from tests.builders import photographs
from tests.builders.listener import Listener


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set, a run on it, and what was heard on the way."""
    folder = tmp_path_factory.mktemp("api")
    data = photographs.course(folder / "photographs", train=20, test=10)
    heard, config = Listener(), TrainConfig(size=32, epochs=1, val="test")
    how = Setting(device="cpu", precision="fp32")
    run = train(data, config, how, name="one", runs=folder / "runs", observer=heard)
    return folder, run, heard


def test_every_public_name_is_there_and_says_what_it_is():
    for name in dr_cli.__all__:
        assert getattr(dr_cli, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = dr_cli.nothing_of_that_name


@pytest.mark.parametrize(
    "name", ["ConfusionMatrix", "FundusDataset", "Grader", "Records", "build_resnet"]
)
def test_its_example_says_what_comes_out(name):
    public = getattr(dr_cli, name)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (example,) = finder.find(public, name)
    assert example.examples, "no example"
    assert runner.run(example).failed == 0


def test_evaluate_is_what_the_run_says_of_itself(world):
    _, run, _ = world
    assert evaluate(run) == evaluate(str(run.folder)) == run.summary()["test"]
    assert evaluate(run, split="val", bootstrap=0)["qwk"]["ci95"] is None
    with pytest.raises(UsageError, match="no predictions of its training split"):
        evaluate(run, split="train")


def test_the_example_of_evaluate_runs(world, monkeypatch):
    folder, run, _ = world
    (folder / "runs" / "resnet18").symlink_to(run.folder, target_is_directory=True)
    monkeypatch.chdir(folder)
    code = "\n".join(re.findall(r"^ {8}(\S.*)$", evaluate.__doc__, re.MULTILINE))
    found = {"evaluate": evaluate}
    exec(code, found)
    assert found["record"]["split"] == "test"


def test_train_fills_a_run_and_tells_its_observer(world):
    folder, run, heard = world
    assert run.folder == folder / "runs" / "one"
    assert run.finished
    assert {"value", "ci95"} <= run.summary()["test"]["qwk"].keys()
    (outline,) = heard.plans
    assert (outline.images["train"], outline.size, outline.epochs) == (20, 32, 1)
    assert [row["epoch"] for row, _ in heard.epochs] == [1]
    assert not (run.folder / "log.txt").exists()  # the observer's, and this one keeps none


def test_the_example_of_train_runs(tmp_path, monkeypatch, capsys):
    photographs.course(tmp_path / "photographs", train=10, test=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DR_RUNS", raising=False)
    (code,) = re.findall(r"\n\n((?: {8}.*\n)+) {4}$", train.__doc__)
    code = code.replace("epochs=10, size=256", "epochs=1, size=32")
    exec(textwrap.dedent(code), {"train": train, "TrainConfig": TrainConfig})
    assert capsys.readouterr().out.startswith("runs")


def test_a_name_that_is_taken_is_refused_before_anything_is_read(world):
    folder, _, _ = world
    with pytest.raises(UsageError, match="exists"):
        train(folder / "nowhere", name="one", runs=folder / "runs")


def test_a_run_grades_and_its_parts_work_alone(world):
    folder, run, _ = world
    table = run.splits()
    table = table[table["split"] == "test"]
    grader = Grader.load(run.folder)
    records = list(grader.predict([folder / "photographs" / path for path in table["path"]]))
    matrix = ConfusionMatrix.from_predictions(table["grade"], [r["predicted"] for r in records])
    assert matrix.counts.sum() == len(table) == 10
    way = grader.members[0].preprocessing
    dataset = FundusDataset(folder / "photographs", table["path"], table["grade"], way)
    picture, grade = dataset[0]
    assert picture.shape == (3, 32, 32)
    assert 0 <= grade <= 4
    logits = build_resnet("resnet18").eval()(picture[None])
    assert logits.shape == (1, 5)
    assert np.isfinite(logits.detach().numpy()).all()
    assert logits.dtype == torch.float32
