"""What a training says when its disk lets it down."""

import shutil

import pytest

from dr_cli.errors import DrError, UsageError, WriteError
from dr_cli.runs import Run, check_name
from dr_cli.training import setting
from dr_cli.writing import write_json


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {})
    return Run(tmp_path / "run")


def at_work(run, work):
    with setting.at_work(run):
        work()


def test_a_full_disk_is_told_with_the_way_on(run, monkeypatch):
    def work():
        raise WriteError("last.pt cannot be written: No space left on device")

    with pytest.raises(DrError, match=r"No space left on device; once .* dr train --resume .*run"):
        at_work(run, work)


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
