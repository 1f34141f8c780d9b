"""What a training says when its disk lets it down."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dr_cli.errors import DrError, UsageError, WriteError
from dr_cli.events import NOTHING
from dr_cli.labels import reading
from dr_cli.ranks import ALONE, Ranks
from dr_cli.runs import Run, check_name
from dr_cli.training import setting
from dr_cli.training.config import TrainConfig
from dr_cli.writing import write_json
from tests.builders import photographs


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {})
    return Run(tmp_path / "run")


def at_work(run, work, ranks=ALONE):
    with setting.at_work(run, ranks):
        work()


@pytest.mark.parametrize("ranks", [ALONE, Ranks(1, 2, 1, 2)])
def test_a_full_disk_is_told_with_the_way_on(run, ranks):
    def work():
        raise WriteError("last.pt cannot be written: No space left on device")

    with pytest.raises(DrError, match=r"No space left on device; once .* dr train --resume .*run"):
        at_work(run, work, ranks)


def test_a_run_folder_that_was_removed_is_told_and_not_made_anew(run):
    def work():
        shutil.rmtree(run.folder)
        write_json(run["metrics.csv"], {})

    with pytest.raises(DrError, match=r"run was removed or moved while it was trained"):
        at_work(run, work)
    assert not run.folder.exists()


def test_any_other_error_stays_what_it_is(run):
    def work():
        raise UsageError("another")

    with pytest.raises(UsageError, match=r"^another$"):
        at_work(run, work)


def test_where_no_folder_can_be_made_it_is_said_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(DrError, match=r"no run folder can be made.*set DR_RUNS"):
            check_name(root, None)
    check_name(tmp_path / "new" / "runs", "run")
    assert not (tmp_path / "new").exists()


@dataclass(frozen=True)
class Two(Ranks):
    """The first of two processes; what the second one has is made up from its own."""

    theirs: Callable[[Any], Any] = lambda own: own

    def gather(self, value):
        return [value, self.theirs(value)]

    def in_turn(self, work):
        return work()


def plan_of_two(data, theirs):
    asked = setting.Setting(device="cpu", precision="fp32")
    config = TrainConfig(size=32, val="test")
    return asked.plan(
        config, reading.read(data), NOTHING, ranks=Two(0, 2, 0, 2, theirs), cache=False
    )[0]


def test_what_one_of_several_processes_cannot_read_is_nobodys(tmp_path):
    """Each takes its share by number: of 19 photographs the second half is another than of 20."""
    data = photographs.course(tmp_path / "data", train=20, test=10)
    found = plan_of_two(data, lambda own: {3: "gone"} if isinstance(own, dict) else own)
    assert found.dataset.reasons == {3: "gone"}


def test_processes_that_found_other_photographs_do_not_begin(tmp_path):
    data = photographs.course(tmp_path / "data", train=20, test=10)
    with pytest.raises(DrError, match="2 processes have not found the same photographs"):
        plan_of_two(data, lambda own: own if isinstance(own, dict) else b"others")
