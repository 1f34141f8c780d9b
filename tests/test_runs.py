"""The run folder's records: written and read back, and what is no record refused in a line."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from dr_cli import runs, writing
from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold

CALIBRATION = Calibration((0.5, 1.5, 2.5, 3.5), 1.25, OperatingPoint(Threshold(0.3, "youden")))
CONFIG = runs.RunConfig(
    options={"arch": "resnet18", "val": "0.15"},
    fold=None,
    preprocessing={"size": 64},
    parameters=11_179_077,
    multiply_adds=148_000_000,
    data=runs.DataRecord("/data", "/data/labels.csv", "table", {"image": "photo"}, "ab" * 32, {}),
    versions={"dr": "0.1.0"},
    device="CPU",
    precision="fp32",
    threads=2,
)


@pytest.mark.parametrize("chosen", [None, CALIBRATION])
def test_a_config_is_read_as_it_was_written(tmp_path, chosen):
    config = runs.RunConfig(**(vars(CONFIG) | {"chosen": chosen}))
    run = runs.Run(tmp_path)
    run.write_config(config)
    assert run.config() == config
    assert ("chosen" in json.loads(run["config.json"].read_text())) == (chosen is not None)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_an_end_of_line_within_a_name_ends_no_row(tmp_path, end):
    run, reason = runs.Run(tmp_path), float("nan")
    rows = [
        [f"two{end}lines.png", 2, "p", "L", "test", reason],
        ["b.png", 0, "q", "", "val", reason],
    ]
    run.write_table("splits.csv", runs.SPLITS, pd.DataFrame(rows, columns=runs.SPLITS))
    found = run.splits()
    assert found["path"].tolist() == [f"two{end}lines.png", "b.png"]
    assert found["grade"].tolist() == [2, 0]
    assert found["reason"].isna().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": "lr=1"}, "not as dr train wrote it"),
        ({"data": {"root": "/data"}}, "not as dr train wrote it"),
        ({"options": {"lr": 1}}, "not as dr train wrote it"),
        ({"surprise": 1}, "not as dr train wrote it"),
        ({"schema": runs.SCHEMA + 1}, f"newer dr .schema {runs.SCHEMA + 1}"),
    ],
)
def test_a_config_of_another_form_is_refused_in_a_line(tmp_path, change, words):
    run = runs.Run(tmp_path)
    writing.write_json(run["config.json"], CONFIG.to_record() | change)
    with pytest.raises(UsageError, match=words) as caught:
        run.config()
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, '{"schema": 1}'])
def test_a_damaged_config_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        runs.Run(tmp_path).config()


def test_weights_say_what_makes_them_a_grader(tmp_path):
    run = runs.Run(tmp_path)
    record = runs.ModelRecord("resnet18", {"size": 64, "mean": [0.5, 0.5, 0.5]}, CALIBRATION, 3)
    run.save_model({"fc.bias": torch.arange(5.0)}, record)
    assert runs.read_record(tmp_path) == runs.read_record(tmp_path / runs.MODEL) == record
    tensors, read = runs.read_model(tmp_path)
    assert read == record
    assert tensors["fc.bias"].tolist() == [0, 1, 2, 3, 4]
    assert run.calibration() == CALIBRATION


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"arch": '"resnet18"'}, "its metadata lacks decision, preprocessing, temperature"),
        ({"arch": "resnet18"}, "no whole safetensors file"),
        ({"arch": '""', "preprocessing": "{}", "temperature": "1", "decision": "3"}, "no whole"),
    ],
)
def test_weights_that_are_no_grader_are_refused(tmp_path, metadata, words):
    from safetensors.torch import save_file

    save_file({"fc.bias": torch.zeros(5)}, tmp_path / runs.MODEL, metadata)
    with pytest.raises(UsageError, match=words):
        runs.read_record(tmp_path)


def test_weights_with_nan_are_refused(tmp_path):
    run = runs.Run(tmp_path)
    record = runs.ModelRecord("resnet18", {"size": 64}, CALIBRATION)
    run.save_model({"fc.bias": torch.tensor([0.0, float("nan")])}, record)
    with pytest.raises(UsageError, match=r"numbers that are not finite, in fc\.bias"):
        runs.read_model(tmp_path)


def test_metrics_are_numbers_and_what_is_none_is_none(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val_qwk,train_loss\n1,,nan\n2,0.5,inf\n")
    assert runs.Run(tmp_path).history() == [
        {"epoch": 1.0, "val_qwk": None, "train_loss": None},
        {"epoch": 2.0, "val_qwk": 0.5, "train_loss": None},
    ]


def test_a_new_run_appears_with_its_record_and_what_a_killed_one_left_goes(tmp_path):
    old = tmp_path / ".new-run-0123abcd"
    old.mkdir()
    os.utime(old, (0, 0))
    (tmp_path / "resnet18-2").mkdir()
    made = [runs.new_run(tmp_path, None, "resnet18", CONFIG) for _ in range(2)]
    assert [one.folder.name for one in made] == ["resnet18", "resnet18-3"]
    assert all(one.config() == CONFIG for one in made)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(
        UsageError, match=r"choose another --name, or go on with: dr train --resume"
    ):
        runs.new_run(tmp_path, "resnet18", "x", CONFIG)


def test_two_processes_never_share_a_folder(tmp_path, monkeypatch):
    """The other one makes its folder after this one has looked and before it renames."""
    real = Path.exists

    def exists(path):
        found = real(path)
        if path.name == "resnet18" and not found:
            path.mkdir()
            (path / "config.json").touch()
        return found

    monkeypatch.setattr(Path, "exists", exists)
    assert runs.new_run(tmp_path, None, "resnet18", CONFIG).folder.name == "resnet18-2"
    assert (tmp_path / "resnet18" / "config.json").read_bytes() == b""


def test_a_run_is_one_process_s_and_leftovers_go_at_its_start(tmp_path):
    (tmp_path / "fold-1").mkdir()
    left = [tmp_path / ".last.pt.0123abcd.pt", tmp_path / "fold-1" / ".confusion.png.0123abcd.png"]
    left += [tmp_path / ".tmpvqzINM"]  # a killed safetensors'
    kept = [tmp_path / "last.pt", tmp_path / ".hidden", tmp_path / ".mine.txt"]
    for path in (*left, *kept):
        path.touch()
    run = runs.Run(tmp_path)
    with run.hold():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)
        left[0].touch()
        with pytest.raises(UsageError, match="being trained by another process"), run.hold():
            pass
        assert left[0].exists()  # not swept while the run is at work
    with run.hold():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept} | {"fold-1"}


@pytest.mark.skipif(os.name == "nt", reason="where a file that is open cannot be removed")
def test_a_lock_that_its_last_holder_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Between the opening and the locking of the file: on one that is there no more, two
    processes would each hold a lock."""
    import fcntl

    real, lock = fcntl.flock, tmp_path / ".lock"

    def late(number, wanted):
        lock.unlink(missing_ok=True)
        monkeypatch.undo()
        return real(number, wanted)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UsageError, match="being trained"), runs.Run(tmp_path).hold():
        pass
    with runs.Run(tmp_path).hold():
        assert lock.exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    writing.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        writing.write_json(path, {"a": float("nan")})
    with pytest.raises(ZeroDivisionError), writing.whole(path) as aside:
        aside.write_text(str(1 / len(aside.read_text())))  # breaks off before it writes
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX rights")
def test_a_file_has_the_rights_that_any_new_file_has(tmp_path):
    (tmp_path / "plain").touch()
    writing.write_text(Path(tmp_path, "whole"), "")
    record = runs.ModelRecord("resnet18", {"size": 64}, CALIBRATION)
    runs.Run(tmp_path).save_model({"fc.bias": torch.zeros(5)}, record)
    for name in ("whole", runs.MODEL):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_run_that_a_launch_has_begun_last_is_found(tmp_path):
    for name in ("first", "second"):
        run = runs.new_run(tmp_path, name, "run", CONFIG, "job-7")
        os.utime(run[runs.LAUNCH], (1, 1 if name == "first" else 2))
    found = runs.find_launched(tmp_path, "job-7")
    assert found
    assert found.name == "second"
    assert runs.find_launched(tmp_path, "job-8") is None


def test_a_launch_of_a_name_that_was_used_before_does_not_go_on_with_the_run_of_then(tmp_path):
    """multi_node.sh calls every launch `dr` unless JOB says otherwise."""
    for name, launch in (("first", "dr"), ("second", "dr"), ("other", "job-8")):
        runs.new_run(tmp_path, name, "run", CONFIG, launch)
    runs.forget_launched(tmp_path, "dr")
    assert runs.find_launched(tmp_path, "dr") is None
    assert runs.find_launched(tmp_path, "job-8")
