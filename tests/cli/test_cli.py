"""The four commands as a person types them, on tiny pictures."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dr_cli import runs
from dr_cli.cli import app
from dr_cli.cli.console import Console
from dr_cli.cli.eval import _p
from tests.builders import photographs

HEAVY = ("torch", "torchvision", "pandas", "numpy", "sklearn", "matplotlib", "seaborn", "scipy")
RUN_FILES = {
    "config.json", "splits.csv", "metrics.csv", "model.safetensors", "last.pt",
    "predictions-val.csv", "predictions-test.csv", "summary.json", "confusion.png", "curves.png",
    "log.txt", "pictures.json",
}  # fmt: skip


def dr(*arguments, **options):
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a data set and one trained run; the tests below only read it."""
    folder = tmp_path_factory.mktemp("world")
    photographs.course(folder / "data")
    os.environ["DR_CACHE"] = str(folder / "cache")
    os.environ["DR_RUNS"] = str(folder / "runs")
    done = dr("train", folder / "data", "--epochs", 2, "--size", 32, "--name", "first")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(folder / "runs" / "first")
    yield folder
    del os.environ["DR_RUNS"], os.environ["DR_CACHE"]


def test_help_loads_nothing_heavy():
    for arguments in (["--help"], ["train", "--help"], ["predict", "--help"]):
        code = (
            "import sys\nfrom dr_cli.cli import app\n"
            f"app({arguments!r}, standalone_mode=False)\n"
            f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr.strip().splitlines()[-1] == "[]"
        assert "Usage" in done.stdout


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


def test_eval_answers_alike_from_files_and_from_the_network(world):
    run = world / "runs" / "first"
    from_files = json.loads(dr("eval", run).stdout)
    assert from_files == json.loads((run / "summary.json").read_text())["test"]
    done = dr("eval", run, world / "data")
    assert done.exit_code == 0, done.output
    from_network = json.loads(done.stdout)
    assert from_network["confusion"] == from_files["confusion"]
    assert from_network["n"] == 20
    for name in ("accuracy", "qwk", "mean_absolute_error"):
        assert from_network[name]["value"] == pytest.approx(from_files[name]["value"], abs=1e-6)
    assert from_network["calibration"]["nll"] == pytest.approx(
        from_files["calibration"]["nll"], abs=1e-4
    )


def test_eval_holds_every_field_of_the_contract(world):
    record = json.loads(dr("eval", world / "runs" / "first").stdout)
    assert {
        "run", "data", "split", "n", "patients", "failed", "grade_counts", "accuracy",
        "balanced_accuracy", "qwk", "macro_f1", "mean_absolute_error", "referable", "calibration",
        "per_grade", "confusion", "baselines", "warnings",
    } <= record.keys()  # fmt: skip
    assert sum(map(sum, record["confusion"])) == record["n"] == 20
    assert record["grade_counts"] == [sum(row) for row in record["confusion"]]
    assert record["patients"] == 10
    assert record["accuracy"]["ci95"][0] <= record["accuracy"]["value"]


def test_figures_of_images_that_chose_the_network_are_said_to_be_optimistic(world):
    run = world / "runs" / "first"
    for arguments, optimistic in (
        ([], False),
        (["--split", "val"], True),
        (["--split", "all"], True),
        ([world / "data", "--split", "train"], True),
    ):
        warnings = json.loads(dr("eval", run, *arguments).stdout)["warnings"]
        assert any("optimistic" in w for w in warnings) == optimistic, arguments


def test_eval_prints_a_table_and_csv(world):
    shown = dr("eval", world / "runs" / "first", "--format", "table").stdout
    assert "Proliferative" in shown
    assert "qwk" in shown
    lines = dr("eval", world / "runs" / "first", "--format", "csv").stdout.splitlines()
    assert lines[0] == "metric,value,low,high"
    assert any(line.startswith("qwk,") for line in lines)
    assert "calibration.before.nll" in shown


def test_fail_under_ends_with_3(world):
    done = dr("eval", world / "runs" / "first", "--fail-under", "accuracy=1.01")
    assert done.exit_code == 3
    assert "accuracy" in done.stderr
    assert dr("eval", world / "runs" / "first", "--fail-under", "accuracy=0").exit_code == 0
    assert dr("eval", world / "runs" / "first", "--fail-under", "accuracy").exit_code == 2


@pytest.mark.parametrize("limits", [["qwk=nan"], ["qwk=-inf"], ["qwk=inf"], ["qwk=0", "qwk=1"]])
def test_a_limit_that_cannot_be_missed_is_refused(limits):
    """Before the run is looked for."""
    done = dr("eval", "nowhere", *(word for limit in limits for word in ("--fail-under", limit)))
    assert done.exit_code == 2
    assert "--fail-under" in done.stderr


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
    assert {path.stem for path in (tmp_path / "heat").iterdir()} == {path.stem for path in chosen}


def test_report_names_the_run(world, tmp_path):
    done = dr("report", world / "runs", "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "first" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


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
        # batch: after the first epoch's 34 + 6 + 20 images, within the second
        patch.setattr(Console, method, stop_after(1 if method == "epoch" else 8))
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


def test_resume_refuses_what_would_change_the_result(world):
    done = dr("train", "--resume", world / "runs" / "first", "--lr", 1)
    assert done.exit_code == 2
    assert "--lr" in done.stderr
    assert dr("train", world / "data", "--resume", world / "runs" / "first").exit_code == 2
    assert dr("train", "--resume", world / "runs" / "first").exit_code == 2  # finished


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "nowhere"], "nowhere"),
        (["train", "{data}", "--arch", "vgg16"], "resnet18"),
        (["train", "{data}", "--epochs", "0"], "--epochs"),
        (["train", "{data}", "--name", "first"], "exists"),
        (["train", "{empty}"], "empty"),
        (["eval", "nowhere"], "nowhere"),
        (["eval", "{empty}"], "summary.json"),
        (["eval", "{run}", "--split", "train"], "train"),
        (["eval", "{run}", "--fail-under", "quality=1"], "quality"),
        (["predict"], "INPUT"),
        (["predict", "x.png", "--run", "{empty}"], "weights"),
        (["predict", "{empty}"], "no photograph"),
        (["report", "{empty}"], "run"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(world, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    names = {"data": world / "data", "run": world / "runs" / "first", "empty": tmp_path / "empty"}
    before = sorted((world / "runs").iterdir())
    done = dr(*(a.format(**names) for a in arguments), "--quiet")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted((world / "runs").iterdir()) == before, "something half-written was left"


@pytest.mark.parametrize("wrong", ["5", "-1", "bad", "", "1.5"])
def test_a_wrong_grade_names_file_row_and_column(tmp_path, wrong):
    photographs.table(tmp_path / "data")
    table = tmp_path / "data" / "labels.csv"
    lines = table.read_text().splitlines()
    lines[3] = f"p02.png,{wrong}"
    table.write_text("\n".join(lines) + "\n")
    done = dr("train", tmp_path / "data", "--image-column", "photo", "--grade-column", "stage")
    assert done.exit_code == 2, done.output
    assert "labels.csv" in done.stderr
    assert "4" in done.stderr
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


def test_one_single_grade_is_refused(tmp_path):
    data = photographs.table(tmp_path / "data", n=10)
    rows = "".join(f"p{k:02}.png,0\n" for k in range(10))
    (data / "labels.csv").write_text("photo,stage\n" + rows)
    done = dr("train", data, "--image-column", "photo", "--grade-column", "stage")
    assert done.exit_code == 2
    assert "grade 0 alone" in done.stderr


def test_a_broken_pipe_is_quiet(world):
    done = subprocess.run(
        f'"{sys.executable}" -m dr_cli predict "{world / "data"}" --quiet | head -1',
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("path,predicted")
    assert "Traceback" not in done.stderr


def test_eval_compares_two_runs_on_the_same_images(world, tmp_path):
    run = world / "runs" / "first"
    other = tmp_path / "other"
    shutil.copytree(run, other)
    pairs = json.loads(dr("eval", run, "--against", other, "--bootstrap", 50).stdout)["against"]
    assert pairs[0]["qwk"]["difference"] == 0
    assert pairs[0]["mcnemar_grade"]["p"] == 1
    shown = dr("eval", run, "--against", other, "--format", "table").stdout
    assert "n/a" in shown.split("difference")[1]  # a copy: every replicate is 0
    assert "nan" not in shown
    assert [_p(value) for value in (None, 1e-9, 0.5)] == ["n/a", "<0.0001", "0.5000"]


def test_eval_compares_many_runs_under_the_rules_asked_for(world, tmp_path):
    run = world / "runs" / "first"
    others = [tmp_path / name for name in ("b", "c")]
    rows = (run / "predictions-test.csv").read_text().splitlines()
    for other in others:
        shutil.copytree(run, other)
        decided = [rows[0], *(row.rsplit(",", 2)[0] + ",4,1" for row in rows[1:])]
        (other / "predictions-test.csv").write_text("\n".join(decided) + "\n")
    flags = ("--against", others[0], "--against", others[1], "--bootstrap", 50)
    asked = ("--decision", "thresholds", "--operating-point", "sensitivity=0.9")
    plain = json.loads(dr("eval", run, *flags).stdout)["against"]
    ruled = json.loads(dr("eval", run, *flags, *asked).stdout)
    assert [Path(pair["a"]).name + Path(pair["b"]).name for pair in plain] == [
        "firstb", "firstc", "bc",
    ]  # fmt: skip
    assert plain[0]["qwk"]["b"] == 0
    assert [pair["qwk"]["difference"] for pair in ruled["against"]] == [0, 0, 0]  # decided alike
    assert ruled["against"][0]["qwk"]["a"] == ruled["qwk"]["value"]


def test_csv_has_rows_for_groups_and_for_other_runs(world, tmp_path):
    run = world / "runs" / "first"
    shutil.copytree(run, tmp_path / "a, b")
    flags = ("--by", "eye", "--against", tmp_path / "a, b", "--bootstrap", 50)
    record = json.loads(dr("eval", run, *flags).stdout)
    done = dr("eval", run, *flags, "--format", "csv").stdout
    rows = {row["metric"]: row for row in csv.DictReader(done.splitlines())}
    left = record["subgroups"]["groups"][0]
    assert float(rows["by.eye=left.qwk"]["value"]) == left["qwk"]["value"]
    assert rows["by.eye=left.n"]["value"] == str(left["n"])
    assert "by.eye=right.referable.auc" in rows
    assert float(rows[f"against.{tmp_path / 'a, b'}.qwk"]["value"]) == 0
    assert float(rows[f"against.{tmp_path / 'a, b'}.mcnemar_grade.p_holm"]["value"]) == 1


def test_eval_scores_anybodys_predictions_like_the_run(world):
    run = world / "runs" / "first"
    record = json.loads(dr("eval", "--predictions", run / "predictions-test.csv").stdout)
    own = json.loads((run / "summary.json").read_text())["test"]
    for name in ("accuracy", "qwk", "macro_f1"):
        assert record[name] == own[name]
    assert record["run"] is None


def test_eval_by_a_column_and_with_other_rules(world):
    run = world / "runs" / "first"
    record = json.loads(
        dr(
            "eval", run, "--by", "eye", "--decision", "thresholds",
            "--operating-point", "specificity=0.5",
        ).stdout
    )  # fmt: skip
    assert {group["value"] for group in record["subgroups"]["groups"]} == {"left", "right"}
    assert record["referable"]["rule"] == "specificity=0.5"
    assert record["referable"]["threshold_from"] == "val of first"
    assert dr("eval", run, "--by", "eye", "--format", "table").exit_code == 0


def test_eval_with_tta_runs_the_network(world):
    run = world / "runs" / "first"
    assert dr("eval", run, "--tta").exit_code == 2
    done = dr("eval", run, world / "data", "--tta", "--split", "val")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["split"] == "val"


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_report_has_its_data_in_other_forms(world, form):
    done = dr("report", world / "runs", "--format", form, "--no-pictures")
    assert done.exit_code == 0, done.output
    assert "first" in done.stdout
    assert ".jpeg" not in done.stdout, "a file name in what is fit to share"


def test_report_draws_for_a_paper(world, tmp_path):
    done = dr("report", world / "runs", "--out", tmp_path / "r.html", "--figures", tmp_path / "f")
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in (tmp_path / "f").iterdir()} == {".png", ".svg"}


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


def test_ungradable_photographs_are_reported_apart(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("dr_cli.photographs.fundus.GRADABLE_FROM", 0.5)
    judged = iter([0.1, 0.9] * 100)
    monkeypatch.setattr("dr_cli.photographs.fundus.judge", lambda field, filled: next(judged))
    data = photographs.course(tmp_path / "data", train=20, test=10, size=60)
    done = dr("train", data, "--size", 32, "--epochs", 1, "--name", "run", "--quiet")
    assert done.exit_code == 0, done.output
    kept = list(csv.DictReader((tmp_path / "runs" / "run" / "predictions-test.csv").open()))
    assert {row["gradable"] for row in kept} == {"0", "1"}
    record = json.loads(dr("eval", tmp_path / "runs" / "run").stdout)
    refused = [row["gradable"] for row in kept].count("0")
    assert record["ungradable"]["n"] == refused
    assert record["ungradable"]["without"]["n"] == 10 - refused
    assert (
        "ungradable.without.qwk" in dr("eval", tmp_path / "runs" / "run", "--format", "csv").stdout
    )


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
