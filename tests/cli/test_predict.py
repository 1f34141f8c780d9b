"""`dr predict` as a person types it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dr_cli.cli import predict
from dr_cli.cli.rows import to_row
from dr_cli.grades import UNTRIED
from dr_cli.network.grader import Grader
from dr_cli.photographs import quality
from tests.builders import photographs
from tests.builders.program import dr


def test_predict_keeps_the_row_of_a_bad_file(world):
    data = world / "data"
    good = sorted((data / "test").iterdir())[0]
    bad = world / "bad.jpeg"
    bad.write_bytes(b"not a picture")
    done = dr("predict", good, bad, world / "absent.png", good, "--run", world / "runs" / "first")
    assert done.exit_code == 1
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["path"] for row in rows] == [
        str(good),
        str(bad),
        str(world / "absent.png"),
        str(good),
    ]
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert rows[1]["predicted"] == rows[1]["p0"] == ""
    assert sum(float(rows[0][f"p{k}"]) for k in range(5)) == pytest.approx(1, abs=1e-5)


def test_predict_agrees_with_the_run(world):
    run = world / "runs" / "first"
    expected = list(csv.DictReader((run / "predictions-test.csv").open()))
    done = dr("predict", *(world / "data" / row["path"] for row in expected), "--format", "jsonl")
    assert done.exit_code == 0, done.output
    for line, row in zip(done.stdout.splitlines(), expected, strict=True):
        record = json.loads(line)
        assert record["predicted"] == int(row["predicted"])
        for grade in range(5):
            assert record["probabilities"][grade] == pytest.approx(
                float(row[f"p{grade}"]), abs=1e-4
            )


def test_predict_grades_a_photograph_within_an_npz(world, tmp_path):
    file = next((world / "data" / "test").glob("*.jpeg"))
    with Image.open(file) as image:
        np.savez(tmp_path / "set.npz", train_images=np.asarray(image)[None])
    names = (file, tmp_path / "set.npz#train/0", tmp_path / "set.npz#train/1")
    done = dr("predict", *names, "--run", world / "runs" / "first", "--format", "jsonl")
    plain, packed, absent = map(json.loads, done.stdout.splitlines())
    assert packed["probabilities"] == plain["probabilities"]
    assert packed["path"] == str(names[1])
    assert "no photograph 'train/1'" in absent["error"]


def test_predict_reads_folders_and_stdin(world):
    data = world / "data" / "test"
    from_folder = dr("predict", data, "--format", "json")
    assert len(json.loads(from_folder.stdout)) == 20
    names = "".join(f"{path}\n" for path in sorted(data.iterdir()))
    from_stdin = dr("predict", "-", "--format", "json", input=names)
    assert from_stdin.stdout == from_folder.stdout
    from_null = dr("predict", "-0", "--format", "json", input=names.replace("\n", "\0"))
    assert from_null.stdout == from_folder.stdout


def test_explain_draws_a_heatmap_each(world, tmp_path):
    chosen = sorted((world / "data" / "test").iterdir())[:2]
    done = dr("predict", *chosen, "--explain", tmp_path / "heat")
    assert done.exit_code == 0, done.output
    drawn = [row["heatmap"] for row in csv.DictReader(done.stdout.splitlines())]
    assert {Path(path) for path in drawn} == set((tmp_path / "heat").iterdir())
    assert [Path(path).name.rpartition("-")[0] for path in drawn] == [one.stem for one in chosen]


def test_a_broken_pipe_is_quiet(world):
    done = subprocess.run(
        f'"{sys.executable}" -m dr_cli predict "{world / "data"}" --quiet --batch-size 1 '
        "| (head -1; sleep 0.1); echo ${PIPESTATUS[0]}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
    )  # fmt: skip
    head, code = done.stdout.splitlines()
    assert head.startswith("path,predicted")
    assert code == "0"
    assert done.stderr == ""


def test_a_folder_gives_the_photographs_that_training_would_find(world, tmp_path):
    for name in ("a.gif", "b.jfif", "._c.png", "notes.txt"):
        photographs.picture(1).convert("RGB").save(tmp_path / name, "PNG")
    done = dr("predict", tmp_path, "--run", world / "runs" / "first", "--batch-size", "auto")
    assert done.exit_code == 0, done.output
    assert [Path(row["path"]).name for row in csv.DictReader(done.stdout.splitlines())] == [
        "a.gif",
        "b.jfif",
    ]


def test_any_file_name_goes_through_pipes_of_any_locale(world, tmp_path):
    name = os.fsencode(tmp_path) + b"/b\xff \xe2\x98\x83.png"
    photographs.picture(1).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", name)
    done = subprocess.run(
        [sys.executable, "-m", "dr_cli", "predict", "-", "--run", world / "runs" / "first"],
        input=name + b"\n", capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"},
    )  # fmt: skip
    assert name in done.stdout


def test_a_heatmap_folder_that_is_a_file_is_refused_before_anything_is_graded(world, tmp_path):
    (tmp_path / "file").touch()
    done = dr("predict", world, "--run", world / "runs" / "first", "--explain", tmp_path / "file")
    assert (done.exit_code, done.stdout) == (2, "")


def test_photographs_are_graded_without_the_program_too(world):
    first, second = sorted((world / "data" / "test").iterdir())[:2]
    run = world / "runs" / "first"
    (one, lost) = predict.predict([first, "absent.png"], Grader.load(run), batch_size=1)
    assert one == json.loads(dr("predict", first, "--run", run, "--format", "jsonl").stdout)
    assert lost["error"]
    assert list(to_row(lost)) == list(to_row(one))
    mean = next(predict.predict([second], Grader.load([run, run])))
    assert mean["probabilities"] == next(Grader.load(run).predict(second))["probabilities"]


def test_help_and_fields_speak_of_one_thing():
    told = " ".join(dr("predict", "--help").stdout.split("Arguments:")[0].split())
    for field in ("quality", "gradable", "verdict", "reason", "note", "(?)", "in brackets"):
        assert field in told
    for bound in quality.QUALITIES[1:3]:  # of usable, of good
        assert f"from {bound}" in told


def test_flips_that_nothing_was_chosen_with_are_warned_of_once(world):
    names = sorted((world / "data" / "test").iterdir())[:2]
    run = world / "runs" / "first"
    assert dr("predict", *names, "--run", run, "--tta").stderr.count(UNTRIED) == 1
    assert UNTRIED not in dr("predict", *names, "--run", run).stderr


def test_pairs_add_a_row_a_patient(world, tmp_path):
    """Whose eye it is, is told by names, by a DICOM file or by a table."""
    dicom = pytest.importorskip("tests.builders.dicom", exc_type=ImportError)
    for name in ("7_left.png", "7_right.png", "photo.png"):
        photographs.picture(2).save(tmp_path / name)
    dicom.save(tmp_path / "scan.dcm", np.asarray(photographs.picture(1)), frames=2)
    (tmp_path / "broken.png").touch()
    (tmp_path / "who.csv").write_text("image,patient\nphoto.png,P-17\nbroken.png,P-9\n")
    asked = ("predict", tmp_path, "--pair", "--labels", tmp_path / "who.csv")
    run = ("--run", world / "runs" / "first")
    done = dr(*asked, *run, "--format", "csv")
    assert done.exit_code == 1, done.output
    rows = list(csv.DictReader(done.stdout.splitlines()))
    told = [(Path(row["path"]).name, Path(row["patient"]).name, row["eye"]) for row in rows[:5]]
    assert told == [
        ("7_left.png", "7", "left"),
        ("7_right.png", "7", "right"),
        ("broken.png", "P-9", ""),
        ("photo.png", "P-17", ""),
        ("scan.dcm", "P-17", "right"),
    ]
    assert "the first of 2 frames" in rows[4]["note"]
    assert [(row["path"], Path(row["patient"]).name) for row in rows[5:]] == [
        ("", "7"), ("", "P-9"), ("", "P-17"),
    ]  # fmt: skip
    assert rows[5]["predicted"] == max(row["predicted"] for row in rows[:2])
    assert "could be graded" in rows[6]["error"]
    assert "3 patients: " in done.stderr
    assert "1 of 5 inputs failed" in done.stderr
    assert "Doe" not in done.output
    shown = dr(*asked, *run, "--format", "table")
    assert "patient P-17" in shown.stdout
    (first, *_) = [
        json.loads(line)
        for line in dr(*asked, *run, "--format", "jsonl").stdout.split("\n")
        if line
    ]
    assert list(first)[-2:] == ["patient", "eye"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--labels", "t.csv"), "for --pair alone"),
        (("--pair", "--patient-column", "who"), "--labels"),
        (("--pair", "--resume", "t.csv"), "leave out --resume"),
    ],
)
def test_options_of_pairs_that_would_do_nothing_are_refused(given, why):
    done = dr("predict", "a.png", *given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr
