"""What is decided before the first step."""

import pytest

from dr_cli import device
from dr_cli.errors import UsageError
from dr_cli.labels import reading
from dr_cli.photographs import duplicates
from dr_cli.ranks import ALONE, Ranks
from dr_cli.runs import FURTHER, SPLITS, Run
from dr_cli.training import trainer
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import make_plans
from tests.builders import photographs
from tests.builders.listener import Listener


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return photographs.course(tmp_path_factory.mktemp("plan") / "course", train=30, test=10)


def plan(data, heard=None, **options):
    config = TrainConfig(size=32, **options)
    return make_plans(
        config, reading.read(data), device.choose("cpu", "fp32"), cache=False,
        observer=heard or Listener(),
    )  # fmt: skip


def test_what_is_found_in_the_data_set_of_val_is_told(data, tmp_path):
    other = photographs.course(tmp_path / "other", train=12, test=5)
    (other / "train" / "name-\udcff.png").touch()  # no valid name: worth a warning
    heard = Listener()
    (planned,) = plan(data, heard, val=str(other))
    assert any("no valid name" in warning for warning in heard.warnings)
    assert len(planned.indices("val")) == 17
    assert len([note for note in heard.notes if note.startswith("layout")]) == 1


def test_folds_look_at_the_photographs_once_and_hold_each_out_once(data, monkeypatch):
    looks = []
    real = duplicates.find
    monkeypatch.setattr(
        duplicates, "find", lambda *given, **more: looks.append(1) or real(*given, **more)
    )
    plans = plan(data, folds=3)
    assert looks == [1]
    assert [one.fold for one in plans] == [1, 2, 3]
    held = sorted(index for one in plans for index in one.indices("test"))
    assert held == list(range(40))
    assert all(one.dataset is plans[0].dataset for one in plans)
    assert all(one.config.batch_size for one in plans)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A run folder as far as its photographs go."""
    run = Run(tmp_path_factory.mktemp("start"))
    (planned,) = plan(data, split_by="patient")
    run.write_config(trainer.describe_run(planned))
    run.write_table("splits.csv", (*SPLITS, *FURTHER), planned.table)
    run.write_hashes(planned.inspection.hashes, duplicates.VERSION)
    return run


def test_a_start_that_was_trained_on_these_test_photographs_is_refused(data, start):
    how = {"split_by": "patient", "seed": 9, "val": "0.4"}
    asked = how | {"weights": str(start.folder)}
    (free,) = plan(data, **how)
    was, now = start.splits()["split"], free.table["split"]
    test = int(((now == "test") & was.isin(["train", "val"])).sum())
    val = int(((now == "val") & (was == "train")).sum())
    assert test > 0
    assert val > 0
    with pytest.raises(UsageError, match=f"has seen {test} of the 10 test images.*--allow-overlap"):
        plan(data, **asked)
    heard = Listener()
    (planned,) = plan(data, heard, allow_overlap=True, **asked)
    assert trainer.describe_run(planned).start == {"test": test, "val": val}
    said = [warning for warning in heard.warnings if "has seen" in warning]
    assert f"{test} of the 10 test images" in said[0]
    assert f"{val} of the {len(free.indices('val'))} val images" in said[1]


def test_folds_hold_out_what_a_start_has_learned(data, start):
    with pytest.raises(UsageError, match="of the 40 test images"):
        plan(data, folds=2, weights=str(start.folder))
    plans = plan(data, folds=2, weights=str(start.folder), allow_overlap=True)
    seen = start.splits()["split"].isin(["train", "val"])
    counts = [int((seen & (one.table["split"] == "test")).sum()) for one in plans]
    assert [one.start["test"] for one in plans] == counts
    assert sum(counts) == seen.sum()


def test_a_start_on_other_photographs_or_on_the_same_split_is_free(data, start, tmp_path):
    (same,) = plan(data, split_by="patient", weights=str(start["model.safetensors"]))
    assert same.start == {"test": 0, "val": 0}
    heard = Listener()
    (unknown,) = plan(data, heard, weights=str(tmp_path / "theirs.pth"))
    assert unknown.start is None
    assert any("not known" in note for note in heard.notes)
    other = photographs.course(tmp_path / "other", train=22, test=10, size=70)
    assert plan(other, weights=str(start.folder))[0].start == {"test": 0, "val": 0}


def test_a_last_batch_takes_a_step_where_each_process_has_its_least(tmp_path):
    """Of two processes those that have 16 photographs each take batch statistics of their own."""
    data = photographs.course(tmp_path / "course", train=34, test=5)
    found = {
        (size, count): plan(data, val="test", batch_size=size)[0].among(
            Ranks(0, count, 0, count) if count > 1 else ALONE
        )
        for size, count in ((32, 1), (32, 2), (30, 2), (1, 1))
    }
    told = {each: (one.steps, one.least) for each, one in found.items()}
    assert told == {(32, 1): (2, 2), (32, 2): (1, 2), (30, 2): (2, 1), (1, 1): (34, 1)}


def test_batches_that_not_all_processes_have_a_part_of_are_refused(data):
    with pytest.raises(UsageError, match="2 processes cannot share batches of 1 photograph"):
        plan(data, batch_size=1)[0].among(Ranks(0, 2, 0, 2))
