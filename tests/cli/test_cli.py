"""`dr train` as a person types it, on tiny pictures."""

import csv
import importlib
import itertools
import json
import os
import shutil
import signal

import pytest

from dr_cli import interrupts, runs, words
from dr_cli.cli.console import Console
from dr_cli.training.learner import Learner
from tests.builders import photographs
from tests.builders.program import dr

RUN_FILES = {
    "config.json", "splits.csv", "hashes.npz", "metrics.csv", "model.safetensors", "last.pt",
    "predictions-val.csv", "predictions-test.csv", "summary.json", "confusion.png", "curves.png",
    "log.txt", "pictures.json",
}  # fmt: skip


def test_the_run_folder_is_whole(world):
    run = world / "runs" / "first"
    assert {path.name for path in run.iterdir()} == RUN_FILES
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(row["test_accuracy"] and row["val_qwk"] for row in rows)
    splits = list(csv.DictReader((run / "splits.csv").open()))
    assert len(splits) == 60
    where = {}
    for row in splits:
        where.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(found) == 1 for found in where.values()), "a patient stands in two splits"
    assert {row["split"] for row in splits} == {"train", "val", "test"}


def stop_after(calls):
    """An observer's method that interrupts at its n-th call."""
    seen = []

    def method(self, *arguments):
        seen.append(arguments)
        if len(seen) == calls:
            raise KeyboardInterrupt

    return method


@pytest.mark.parametrize("method", ["epoch", "batch"])
def test_an_interrupted_run_resumes_to_the_bits_of_an_unbroken_one(
    world, tmp_path, monkeypatch, method
):
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    common = ["--epochs", 2, "--size", 32, "--name", "broken", "--save-every", 0]
    with monkeypatch.context() as patch:
        # batch: the first epoch tells 17 of training, validation and test; this is in the second
        patch.setattr(Console, method, stop_after(1 if method == "epoch" else 20))
        patch.setattr("dr_cli.training.learner.SHOW_EVERY", 0.0)
        done = dr("train", world / "data", *common)
    assert done.exit_code == 130
    assert f"dr train --resume {tmp_path / 'broken'}" in done.stderr
    assert done.stdout == ""
    done = dr("train", "--resume", tmp_path / "broken")
    assert done.exit_code == 0, done.output
    whole = world / "runs" / "first"
    name = "predictions-test.csv"
    assert (whole / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    one, other = runs.read_model(whole), runs.read_model(tmp_path / "broken")
    assert one[1] == other[1]
    assert all(bool((one[0][key] == other[0][key]).all()) for key in one[0])
    assert (
        json.loads((whole / "summary.json").read_text())["test"]["qwk"]
        == json.loads((tmp_path / "broken" / "summary.json").read_text())["test"]["qwk"]
    )
    rows = [runs.Run(one).history() for one in (whole, tmp_path / "broken")]
    assert [r["train_loss"] for r in rows[0]] == [r["train_loss"] for r in rows[1]]


@pytest.mark.parametrize("folds", [(), ("--folds", 2)])
def test_interrupted_before_anything_is_saved_a_run_begins_anew(
    world, tmp_path, monkeypatch, folds
):
    """The same line says so, whether the run was stopped or its name is asked for again."""
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    given = ("train", world / "data", "--epochs", 2 - bool(folds), "--size", 32, "--name", "early")
    with monkeypatch.context() as patch:
        patch.setattr(Console, "plan", stop_after(1))
        done = dr(*given, *folds)
    assert done.exit_code == 130
    way = f"go on with: dr train --resume {tmp_path / 'early'}"
    assert way in done.stderr
    done = dr(*given, *folds)
    assert done.exit_code == 2
    assert way in done.stderr
    done = dr("train", "--resume", tmp_path / "early")
    assert done.exit_code == 0, done.output
    if not folds:
        name = "predictions-test.csv"
        assert "it begins anew" in done.stderr
        assert (world / "runs/first" / name).read_bytes() == (
            tmp_path / "early" / name
        ).read_bytes()


STOPS = {  # where a signal comes: what is patched, and at which of its calls
    "in the second epoch": ("dr_cli.training.step.augment", 9),
    "while an epoch is judged": ("dr_cli.training.learner.logits_of", 3),
    "while pictures are made": ("dr_cli.training.pictures.make_pictures", 1),
    "while intervals are counted": ("dr_cli.training.trainer.evaluate_run", 2),
}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("where", "number"), [*zip(STOPS, (15, 1, 15, 1), strict=True)])
def test_a_signal_at_any_moment_is_one_line_and_loses_nothing(
    world, tmp_path, monkeypatch, where, number
):
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    before = {one: signal.getsignal(one) for one in interrupts.SIGNALS}
    for one in before:  # of nohup, SIGHUP is ignored
        signal.signal(one, signal.default_int_handler)
    name, which = STOPS[where]
    module, _, function = name.rpartition(".")
    real, calls = getattr(importlib.import_module(module), function), itertools.count(1)

    def stopped(*given, **more):
        if next(calls) == which:
            os.kill(os.getpid(), number)
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(name, stopped)
        done = dr("train", world / "data", "--epochs", 2, "--size", 32, "--name", "stopped")
    for one, handler in before.items():
        signal.signal(one, handler)
    assert done.exit_code == 128 + number, done.output
    line = f"interrupted; go on with: dr train --resume {tmp_path / 'stopped'}"
    assert [text for text in done.stderr.splitlines() if "interrupted" in text] == [line]
    assert not list((tmp_path / "stopped").glob(".*"))
    done = dr("train", "--resume", tmp_path / "stopped")
    assert done.exit_code == 0, done.output
    one, other = world / "runs" / "first", tmp_path / "stopped"
    for name in ("predictions-val.csv", "predictions-test.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    timed = {"seconds", "images_per_second"}
    assert [
        {k: v for k, v in row.items() if k not in timed} for row in runs.Run(one).history()
    ] == [{k: v for k, v in row.items() if k not in timed} for row in runs.Run(other).history()]


def test_a_run_ends_with_what_it_found_and_what_to_type_next(world):
    log = (world / "runs" / "first" / "log.txt").read_text()
    run, lines = world / "runs" / "first", log.splitlines()
    kept = runs.Run(run).epoch()
    assert f"kept        epoch {kept} of 2" in lines
    test = json.loads((run / "summary.json").read_text())["test"]
    assert any(line.startswith(f"test        QWK {words.figure(test['qwk'])}") for line in lines)
    assert any(line.startswith("baseline    QWK 0.000") for line in lines)
    assert lines[-2:] == [f"next        dr eval {run}", f"            dr report {run.parent}"]
    assert log.count("never used to choose") == 1
    assert not any(line.rstrip().endswith(" best") for line in lines)
    assert any(line.split()[:1] == ["2/2"] for line in lines)


def test_resume_refuses_what_would_change_the_result(world):
    done = dr("train", "--resume", world / "runs" / "first", "--warmup", 1)
    assert done.exit_code == 2
    assert "--warmup" in done.stderr
    assert dr("train", world / "data", "--resume", world / "runs" / "first").exit_code == 2
    assert dr("train", "--resume", world / "runs" / "first").exit_code == 2  # finished


def test_a_run_that_diverged_goes_on_with_a_smaller_rate_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    real, run = Learner.step, tmp_path / "run"

    def diverging(self, epoch, *batch, **more):
        loss, hits = real(self, epoch, *batch, **more)
        bad = epoch == 2 and self.config.learning_rate == 1e-3
        return loss * (float("nan") if bad else 1), hits

    monkeypatch.setattr(Learner, "step", diverging)
    data = photographs.course(tmp_path / "data", train=20, test=6)
    done = dr("train", data, "--epochs", 2, "--size", 32, "--name", "run", "--precision", "fp32")
    way = f"try a smaller --lr than 0.001; go on with: dr train --resume {run} --lr 0.0003"
    for again in (done, dr("train", "--resume", run)):  # the same as before meets the same
        assert (again.exit_code, again.stderr.splitlines()[-1][-len(way) :]) == (1, way)
    done = dr("train", "--resume", run, "--lr", 3e-4)
    assert done.exit_code == 0, done.output
    made = runs.Run(run).config()
    change = {"after_epoch": 1, "option": "lr", "from": 1e-3, "to": 3e-4}
    assert (made.options["lr"], made.changes) == (3e-4, [change])
    command = json.loads(dr("report", run, "--format", "json").stdout)["runs"][0]["command"]
    assert command.splitlines()[0].endswith("--lr 0.001")
    assert command.splitlines()[1] == "dr train --resume RUN --lr 0.0003  # after epoch 1"


def test_resume_refuses_other_photographs_than_the_run_began_with(world, tmp_path):
    """Each stands where splits.csv says, whatever would be drawn now: so each must stand there."""
    shutil.copytree(world / "runs" / "first", tmp_path / "run")
    kept = tmp_path / "run" / "splits.csv"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:-1]))
    done = dr("train", "--resume", tmp_path / "run", "--epochs", 3)
    assert done.exit_code == 2
    assert "other photographs than the run began with" in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()  # nothing was touched


@pytest.mark.parametrize("wrong", ["5", "-1", "bad", "1.5"])
def test_a_wrong_grade_names_file_row_and_column(tmp_path, wrong):
    photographs.table(tmp_path / "data")
    table = tmp_path / "data" / "labels.csv"
    lines = table.read_text().splitlines()
    lines[3] = f"p02.png,{wrong}"
    table.write_text("\n".join(lines) + "\n")
    done = dr("train", tmp_path / "data", "--image-column", "photo", "--grade-column", "stage")
    assert done.exit_code == 2, done.output
    assert "labels.csv" in done.stderr
    assert "row 4," in done.stderr
    assert "stage" in done.stderr


def test_missing_and_broken_photographs_are_left_out_and_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    data = photographs.table(tmp_path / "data", n=40)
    (data / "images" / "p03.png").unlink()
    (data / "images" / "p04.png").write_bytes(b"broken")
    done = dr(
        "train", data, "--image-column", "photo", "--grade-column", "stage", "--epochs", 1,
        "--size", 32, "--name", "run", "--loss", "ordinal", "--balance", "oversample",
        "--optimizer", "adamw", "--ema", 0.5, "--decision", "thresholds",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "runs" / "run" / "splits.csv").open()))
    reasons = [row["reason"] for row in rows if row["reason"]]
    assert len(rows) == 40
    assert len(reasons) == 2
    assert any("missing" in reason for reason in reasons)
    assert any("unreadable" in reason for reason in reasons)


def options_file(folder, text):
    (folder / "options.toml").write_text(text)
    return folder / "options.toml"


def test_a_file_of_options_takes_what_the_help_lists_and_flags_win(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    data = photographs.table(tmp_path / "data", n=40)
    file = options_file(
        tmp_path,
        """name = "of the file"
device = "cpu"
precision = "fp32"
workers = 1
layout = "table"
image-column = "photo"
grade_column = "stage"
quiet = true
seed = 3
size = 32
epochs = 5
""",
    )
    done = dr("train", data, "--config", file, "--epochs", 1)
    assert done.exit_code == 0, done.output
    run = runs.Run(tmp_path / "runs" / "of the file")
    assert done.stdout.strip() == str(run.folder)
    made = run.config()
    assert (made.precision, made.options["seed"], made.options["epochs"]) == ("fp32", 3, 1)
    assert (made.data.layout, made.data.columns["grade"]) == ("table", "stage")
    assert "M parameters" not in done.stderr  # quiet
    done = dr("train", data, "--config", file, "--layout", "kaggle", "--dry-run")
    assert done.exit_code == 2
    assert "kaggle" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("presicion = 'fp32'", "'presicion' is no option of dr train; did you mean 'precision'?"),
        ("epoch = 3", "did you mean 'epochs'?"),
        ("resume = 'runs/x'", "'resume' is no option"),
        ("name = ['a', 'b']", "no single value"),
        ("workers = 'many'", "--workers"),
        ("precision = 'fp8'", "--precision"),
    ],
)
def test_a_file_of_options_is_refused_by_name(tmp_path, text, says):
    done = dr("train", tmp_path, "--config", options_file(tmp_path, text))
    assert done.exit_code == 2
    assert says in done.stderr


def test_one_single_grade_is_refused(tmp_path):
    data = photographs.table(tmp_path / "data", n=10)
    rows = "".join(f"p{k:02}.png,0\n" for k in range(10))
    (data / "labels.csv").write_text("photo,stage\n" + rows)
    done = dr("train", data, "--image-column", "photo", "--grade-column", "stage")
    assert done.exit_code == 2
    assert "grade 0 alone" in done.stderr


def test_a_dry_run_says_what_is_there_and_keeps_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    done = dr("train", world / "data", "--dry-run", "--format", "json", "--size", 32)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["layout"] == "course"
    assert (record["rows"], record["images_found"], record["images_missing"]) == (60, 60, 0)
    assert record["splits"]["test"]["grade_counts"] == [4] * 5
    assert record["leaks"]["fellow_eye_in_train"] == 0
    assert record["plan"]["size"] == 32
    assert record["plan"]["seconds_per_epoch"] > 0
    assert not (tmp_path / "runs").exists()
    assert "median" in dr("train", world / "data", "--dry-run", "--size", 32).stdout
    assert dr("train", world / "data", "--format", "json").exit_code == 2


def test_a_dry_run_on_labels_alone_tells_all_that_the_tables_tell(shared):
    done = dr("train", shared / "data" / "dlp", "--dry-run", "--format", "json", "--val", 0.3)
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    assert (record["rows"], record["images_missing"]) == (35_126, 35_126)
    assert record["leaks"]["fellow_eye_in_train"] == 5_618
    assert record["baselines"]["fellow_eye"]["accuracy"] == pytest.approx(0.847, abs=5e-4)
    assert record["baselines"]["fellow_eye"]["qwk"] == pytest.approx(0.723, abs=5e-4)
    assert record["plan"] is None


def test_cross_validation_holds_every_patient_out_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    chosen = ["--folds", 2, "--epochs", 1, "--size", 32, "--name", "cv"]
    chosen += ["--decision", "thresholds"]
    with monkeypatch.context() as patch:  # the second fold is cut off, then resumed
        patch.setattr(Console, "epoch", stop_after(2))
        assert dr("train", world / "data", *chosen).exit_code == 130
    run = tmp_path / "cv"
    assert not (run / "summary.json").exists()
    done = dr("train", "--resume", run)
    assert done.exit_code == 0, done.output
    folds = [list(csv.DictReader((run / f"fold-{k}" / "splits.csv").open())) for k in (1, 2)]
    held = [{row["path"] for row in rows if row["split"] == "test"} for rows in folds]
    assert not held[0] & held[1]
    assert len(held[0] | held[1]) == 60
    for rows in folds:
        tested = {row["patient"] for row in rows if row["split"] == "test"}
        assert not tested & {row["patient"] for row in rows if row["split"] != "test"}
    record = json.loads(dr("eval", run).stdout)
    assert record["n"] == 60
    assert record == json.loads((run / "summary.json").read_text())["test"]
    assert json.loads(dr("eval", run, world / "data", "--split", "all").stdout)["n"] == 60
    pages = json.loads(dr("report", tmp_path, "--format", "json").stdout)
    assert [one["name"] for one in pages["runs"]] == ["cv"]
    graded = dr("predict", world / "data" / "test", "--format", "jsonl")  # both folds' mean
    assert graded.exit_code == 0, graded.output
    assert len(graded.stdout.splitlines()) == 20


def test_weights_that_cannot_be_had_leave_no_run_behind(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    (tmp_path / "half.pth").write_bytes(b"PK half a file")
    done = dr("train", world / "data", "--weights", tmp_path / "half.pth", "--quiet")
    assert done.exit_code == 2
    assert "half.pth" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_resume_knows_the_table_and_the_validation_that_were_given(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    columns = ("--image-column", "photo", "--grade-column", "stage", "--size", 32)
    data, other = photographs.table(tmp_path / "data", 40), photographs.table(tmp_path / "more", 10)
    rows = (data / "labels.csv").read_text().splitlines(keepends=True)
    (data / "half.csv").write_text("".join(rows[:21]))
    named = (other / "labels.csv").read_text().replace("photo,stage", "image,grade")
    (other / "grades.csv").write_text(named)
    monkeypatch.chdir(tmp_path)
    given = (data / "half.csv", "--val", "more/grades.csv", *columns, "--epochs", 1)
    done = dr("train", *given, "--name", "run")
    assert done.exit_code == 0, done.output
    monkeypatch.chdir(data)
    done = dr("train", "--resume", tmp_path / "runs" / "run", "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "20 train, 10 val" in done.stderr
    assert done.stderr.count("layout: ") == 2  # of each of the two, once
    assert "asked for" not in done.stderr  # its precision is the one that this machine would take


def test_a_grade_map_is_kept_for_eval_and_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    table = photographs.table(tmp_path / "table", 40)
    with (table / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            stage = tmp_path / "data" / str(int(row["stage"]) + 1)
            stage.mkdir(parents=True, exist_ok=True)
            shutil.copy(table / "images" / row["photo"], stage)
    done = dr("train", tmp_path / "data", "--size", 32, "--epochs", 1, "--name", "run")
    assert done.exit_code == 2
    shifted = "1=0,2=1,3=2,4=3,5=4"
    assert f'--grade-map "{shifted}"' in done.stderr
    assert dr("train", tmp_path / "data", "--grade-map", "1=9").exit_code == 2
    run = tmp_path / "runs" / "run"
    given = ("--grade-map", shifted, "--size", 32, "--epochs", 1, "--name", "run")
    done = dr("train", tmp_path / "data", *given)
    assert done.exit_code == 0, done.output
    assert json.loads((run / "config.json").read_text())["data"]["columns"] == {
        "grade_map": shifted
    }
    done = dr("eval", run, tmp_path / "data", "--split", "all", "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    assert sum(json.loads(done.stdout)["grade_counts"]) == 40
    assert dr("train", "--resume", run, "--epochs", 2).exit_code == 0
    assert "--grade-map" in dr("train", "--resume", run, "--grade-map", shifted).stderr


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--val", "2"), "--val 2: give a fraction between 0 and 1"),
        (("--val", "nan"), "--val nan: give a fraction"),
        (("--val", "nowhere"), "--val nowhere: no such folder or table"),
        (("--layout", "kaggle"), "no layout 'kaggle'; known are"),
        (("--grade-map", "1:0"), "--grade-map, '1:0': give VALUE=GRADE"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_bad_values_fail_before_an_eye_is_drawn(tmp_path, monkeypatch, given, why, more):
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DR_DATA", raising=False)
    done = dr("train", *given, *more)
    assert done.exit_code == 2
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, "not a word of what was read"
    assert not (tmp_path / "cache").exists()


def test_files_that_are_no_photographs_are_counted(tmp_path):
    data = photographs.course(tmp_path / "data")
    for name in ("a.raw", "b.raw", "c.psd"):
        (data / name).touch()
    done = dr("train", data, "--dry-run", "--size", 32)
    told = next(line for line in done.stderr.splitlines() if line.startswith("passed over in"))
    assert all(kind in told for kind in ("2 .raw", "1 .psd"))


def test_copies_of_validation_photographs_in_training_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    data = photographs.table(tmp_path / "data", 40)
    shutil.copytree(data, tmp_path / "copy")
    named = ("--image-column", "photo", "--grade-column", "stage")
    rows = (data / "labels.csv").read_text().replace("photo,stage", "image,grade")
    (tmp_path / "copy" / "labels.csv").write_text(rows)
    done = dr("train", data, "--val", tmp_path / "copy", *named, "--size", 32, "--epochs", 1)
    assert done.exit_code == 0, done.output
    assert "40 of 40 val images have a duplicate in train" in done.stderr


def test_validation_on_training_photographs_is_refused(world):
    done = dr("train", world / "data", "--val", world / "data", "--size", 32, "--name", "same")
    assert done.exit_code == 2
    assert "60 of its photographs are in the data set" in done.stderr


WITHOUT_DATA = '{"options": {}, "data": {}, "fold": null, "precision": "fp32"}'


@pytest.mark.parametrize("text", ["{}", "[]", '{"options": {}}', WITHOUT_DATA])
def test_resume_refuses_a_damaged_record(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    done = dr("train", "--resume", tmp_path)
    assert done.exit_code == 2
    assert "config.json" in done.stderr


def test_a_fold_is_resumed_with_the_others(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    assert dr("train", world / "data", "--folds", 2, "--epochs", 1, "--size", 32, "--name", "cv",
              "--quiet").exit_code == 0  # fmt: skip
    done = dr("train", "--resume", tmp_path / "cv" / "fold-1", "--epochs", 2)
    assert done.exit_code == 2
    assert f"--resume {tmp_path / 'cv'}" in done.stderr
    done = dr("eval", tmp_path / "cv", world / "data", "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    assert "learned from some of these images" in done.stderr  # each fold's network, from the rest
