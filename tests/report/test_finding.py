"""Which runs a report is of, and what it says of those that it leaves out."""

import json
from pathlib import Path

import pytest

from dr_cli.errors import UsageError
from dr_cli.report import finding, page, reading
from tests.builders.listener import Listener
from tests.builders.runs import edit, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, name in enumerate(("first", "second", "third")):
        write_run(tmp_path / "runs" / name, seed=seed)
    return tmp_path / "runs"


def cut_short(run: Path) -> None:
    """As an interrupted run stands: two of its four epochs done."""
    (run / "summary.json").unlink()
    table = run / "metrics.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:3]), encoding="utf-8")


def test_a_broken_run_is_named_and_the_others_are_reported(runs: Path) -> None:
    (runs / "second" / "summary.json").write_text("{half", encoding="utf-8")
    heard = Listener()
    data = reading.collect([runs], observer=heard)
    assert {run["name"] for run in data["runs"]} == {"first", "third"}
    [left] = data["left_out"]
    assert (left["name"], left["broken"]) == ("second", True)
    assert left["reason"].startswith("summary.json cannot be read")
    [warning] = heard.warnings
    assert warning.startswith(f"second is left out: {runs / 'second' / 'summary.json'}")
    for text in (page.render(data), page.to_markdown(data)):
        assert "Left out: second." in text
        assert "summary.json cannot be read" in text


def test_a_record_of_another_shape_is_broken_as_well(runs: Path) -> None:
    with edit(runs / "second" / "summary.json") as told:
        told["test"]["calibration"]["temperature"] = "warm"
    [left] = reading.collect([runs])["left_out"]
    assert "is not as dr train wrote it" in left["reason"]


def test_to_share_the_reason_names_no_file(runs: Path) -> None:
    (runs / "second" / "predictions-test.csv").write_text("secret-clinic\n1\n", encoding="utf-8")
    assert "has no column" in reading.collect([runs])["left_out"][0]["reason"]
    [left] = reading.collect([runs], no_pictures=True)["left_out"]
    assert left["reason"] == "a file of it cannot be read"


def test_an_unfinished_run_is_named_with_its_epochs(runs: Path) -> None:
    cut_short(runs / "third")
    heard = Listener()
    data = reading.collect([runs], observer=heard)
    assert len(data["runs"]) == 2
    assert data["left_out"] == [
        {"name": "third", "broken": False, "reason": "not finished, 2 of 4 epochs done"}
    ]
    assert f"dr train --resume {runs / 'third'} goes on" in heard.warnings[0]
    assert "Left out: third.</strong> not finished, 2 of 4 epochs done." in page.render(data)


def test_where_no_run_is_finished_the_first_says_how_far_it_is(runs: Path) -> None:
    for run in runs.iterdir():
        cut_short(run)
    with pytest.raises(UsageError, match=r"first: .* 2 of 4 epochs done \(nor are 2 more\)"):
        reading.collect([runs])
    (runs / "first" / "metrics.csv").unlink()
    with pytest.raises(UsageError, match=r"first: .* 0 of 4 epochs done; finish it with"):
        reading.collect([runs / "first"])


def test_an_unfinished_cross_validation_counts_its_folds(runs: Path) -> None:
    pool = write_run(runs / "pool", folds=3)
    write_run(pool / "fold-1")
    cut_short(write_run(pool / "fold-2"))
    cut_short(pool)
    data = reading.collect([runs])
    assert [entry["reason"] for entry in data["left_out"]] == ["not finished, 1 of 3 folds done"]


def test_no_readable_run_is_an_error(runs: Path) -> None:
    for run in runs.iterdir():
        (run / "summary.json").write_text("{half", encoding="utf-8")
    with pytest.raises(UsageError, match=r"first.summary\.json cannot be read"):
        reading.collect([runs])


def test_a_run_is_found_once_at_each_depth(runs: Path) -> None:
    cut_short(runs / "third")
    for folders in ([runs], [runs.parent], [runs, runs / "first", runs.parent]):
        found = finding.find_runs(folders)
        assert sorted(run.name for run in found.finished) == ["first", "second"]
        assert [run.name for run in found.unfinished] == ["third"]
        assert json.dumps(sorted(found.names)) == '["first", "second", "third"]'
