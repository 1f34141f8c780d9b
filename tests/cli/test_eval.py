"""`dr eval` as a person types it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dr_cli import runs
from dr_cli.grades import Calibration
from dr_cli.network.novelty import Familiar
from dr_cli.photographs.crop import Preprocessing
from dr_cli.photographs.quality import Judgement
from dr_cli.report import prose
from tests.builders import photographs
from tests.builders.program import dr


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
    assert "QWK" in shown
    lines = dr("eval", world / "runs" / "first", "--format", "csv").stdout.splitlines()
    assert lines[0] == "metric,value,low,high"
    assert any(line.startswith("qwk,") for line in lines)
    assert "NLL before temperature" in shown


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


def test_eval_compares_two_runs_on_the_same_images(world, tmp_path):
    run = world / "runs" / "first"
    other = tmp_path / "other"
    shutil.copytree(run, other)
    pairs = json.loads(dr("eval", run, "--against", other, "--bootstrap", 50).stdout)["against"]
    assert pairs[0]["qwk"]["difference"] == 0
    assert pairs[0]["mcnemar_grade"]["p"] == 1
    shown = dr("eval", run, "--against", other, "--format", "table").stdout
    rows = (line.strip().partition("  ") for line in shown.splitlines())
    tests = {name: told.strip() for name, _, told in rows}
    assert tests["grade, right alone"] == "0 : 0, p = 1.000"
    assert tests["QWK"] == "+0.000, p = 1.000"  # a copy: every replicate is 0, and no interval


def test_eval_compares_many_runs_under_the_rules_asked_for(world, tmp_path):
    run = world / "runs" / "first"
    others = [tmp_path / name for name in ("b", "c")]
    rows = (run / "predictions-test.csv").read_text().splitlines()
    for other in others:
        shutil.copytree(run, other)
        decided = [rows[0], *(row.rsplit(",", 2)[0] + ",4,1" for row in rows[1:])]
        (other / "predictions-test.csv").write_text("\n".join(decided) + "\n")
    flags = ("--against", others[0], "--against", others[1], "--bootstrap", 50)
    asked = ("--decision", "argmax", "--operating-point", "sensitivity=0.9")
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
    record = json.loads(done.stdout)
    assert record["split"] == "val"
    assert any("chosen without --tta" in warning for warning in record["warnings"])


def test_ungradable_photographs_are_reported_apart(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("dr_cli.photographs.quality.GRADABLE_FROM", 0.5)
    judged = iter([0.1, 0.9] * 100)
    monkeypatch.setattr(
        "dr_cli.photographs.quality.judge", lambda picture, found: Judgement(next(judged), "")
    )
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predictions", "x.csv", "--decision", "argmax"], "--decision does nothing here"),
        (["--predictions", "x.csv", "--against", "b"], "--against does nothing here"),
        (["--predictions", "x.csv", "--tta"], "--tta does nothing here"),
        (["--predictions", "x.csv", "--device", "cpu"], "--device does nothing here"),
        (["--predictions", "x.csv", "--layout", "course"], "for DATA or --labels"),
        (["run", "--image-column", "photo"], "--image-column does nothing here"),
        (["run", "--layout", "course"], "--layout does nothing here"),
        (["run", "--workers", 2], "--workers does nothing here"),
        (["run", "--tta"], "it is for a RUN with DATA"),
        (["run", "--labels", "x.csv"], "--labels does nothing here: it is for --predictions"),
        (["run", "data", "--against", "b"], "--against does nothing here"),
        (["--predictions", "x.csv", "--threshold", "none.csv"], "--threshold 'none.csv': give"),
        (["run", "--prevalence", 5], "prevalence 5 is no share"),
    ],
)
def test_an_option_that_does_nothing_is_refused_before_anything_is_read(words, said):
    done = dr("eval", *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_table_is_read_from_stdin_with_the_columns_named(world):
    run = world / "runs" / "first"
    text = (run / "predictions-test.csv").read_text()
    renamed = text.replace("path,grade", "photo,truth", 1).replace(",", ";")
    named = ("--image-column", "photo", "--grade-column", "truth")
    done = dr("eval", "--predictions", "-", *named, "--bootstrap", 0, input=renamed)
    assert done.exit_code == 0, done.output
    own = json.loads(dr("eval", run, "--bootstrap", 0).stdout)
    assert json.loads(done.stdout)["qwk"] == own["qwk"]


def test_a_threshold_that_is_given_decides_a_runs_alarms(world):
    run = world / "runs" / "first"
    record = json.loads(dr("eval", run, "--threshold", 0.0, "--bootstrap", 0).stdout)
    assert record["referable"]["threshold_from"] == "given by --threshold"
    assert record["referable"]["sensitivity"]["value"] == 1
    assert record["sight_threatening"]["threshold_from"] == "val of first"
    chosen = ("--threshold", run / "predictions-val.csv", "--bootstrap", 0)
    told = json.loads(dr("eval", run, *chosen).stdout)["referable"]
    assert told["threshold_from"] == str(run / "predictions-val.csv")
    own = json.loads(dr("eval", run, "--bootstrap", 0).stdout)["referable"]
    assert told["threshold"] == pytest.approx(own["threshold"], abs=1e-4)


def test_predictive_values_are_told_at_the_prevalences_asked_for(world):
    run = world / "runs" / "first"
    asked = ("--prevalence", 0.3, "--prevalence", 0.01, "--bootstrap", 0)
    record = json.loads(dr("eval", run, *asked).stdout)
    for name in ("referable", "sight_threatening"):
        assert [at["prevalence"] for at in record[name]["at_prevalence"]] == [0.01, 0.3]
    assert "PPV at 30%" in dr("eval", run, *asked, "--format", "table").stdout


def test_the_checklist_says_where_items_are_answered(world):
    run = world / "runs" / "first"
    found = json.loads(dr("eval", run, "--checklist", "--bootstrap", 0).stdout)
    rows = {row["item"]: row for row in found}
    assert rows["24"]["where"] == ["flow"]
    assert rows["15a"]["where"] == ["RUN/config.json", "RUN/model.safetensors"]
    assert rows["38"]["answered"] == "no"
    shown = dr("eval", run, "--checklist", "--format", "table").stdout
    assert "10.1038/s41591-025-03953-8" in shown.replace("\n", "")
    lines = list(csv.reader(dr("eval", run, "--checklist", "--format", "csv").stdout.splitlines()))
    assert len(lines) == 49


def test_the_card_says_what_a_run_is_and_reaches_in_the_reports_words(world):
    run = world / "runs" / "first"
    card = dr("eval", run, "--card", "--bootstrap", 0).stdout
    record = json.loads(dr("eval", run, "--bootstrap", 0).stdout)
    report = dr("report", run, "--format", "markdown").stdout
    assert card.startswith("# Model card: first\n")
    assert prose.INTENDED_USE in card
    shared = [line for line in report.split("\n\n") if line.startswith("**")]
    for title in ("Out of scope", "Data", "Metrics", "Limits"):
        (told,) = (part for part in shared if part.startswith(f"**{title}.**"))
        assert f"## {title}\n\n{told.partition('.** ')[2].strip()}" in card
    assert f"| QWK | {record['qwk']['value']:.3f}".replace("-", "−") in card
    assert "always predicting the commonest grade" in card
    assert "from probability" in card
    assert str(world) not in card
    other = dr("eval", run, world / "data", "--card", "--bootstrap", 0)
    assert "## What it reaches on other photographs" in other.stdout


def test_weights_alone_have_no_figures(world):
    done = dr("eval", world / "runs" / "first" / "model.safetensors")
    assert done.exit_code == 2
    assert "name that" in done.stderr


def test_the_card_of_weights_alone_holds_what_they_tell_and_names_what_they_do_not(world, tmp_path):
    weights = world / "runs" / "first" / "model.safetensors"
    done = dr("eval", weights, "--card")
    assert (done.exit_code, done.stderr) == (0, "")
    card, record = done.stdout, runs.read_record(weights)
    assert card.startswith("# Model card: model.safetensors\n")
    network = f"| network | resnet18, 11.2 M parameters, weights of epoch {record.epoch} |"
    told = dr("eval", world / "runs" / "first", "--card", "--bootstrap", 0).stdout.splitlines()
    shared = [line for line in told if line.startswith(("| input", "| output", "| temperature"))]
    assert {network, *shared} <= set(card.splitlines())
    point = record.calibration.operating_point.referable
    assert f"| referable | from probability {point.value:.3f} ({point.rule}); sens" in card
    assert f"data; fingerprint {record.trained_on.fingerprint}" in card
    assert prose.INTENDED_USE in card
    assert "it tells no novelty" in card  # of too few photographs
    assert "an operating point" not in card
    (tmp_path / "alone").mkdir()
    shutil.copy(weights, tmp_path / "alone")
    alone = dr("eval", tmp_path / "alone", "--card").stdout
    assert alone.partition("\n")[2] == card.partition("\n")[2]


def test_weights_that_tell_more_or_less_have_a_card_that_says_so(tmp_path):
    way = Preprocessing(64).to_dict()
    known = Familiar.fit(*np.random.default_rng(0).normal(size=(2, 40, 8)))
    cuts = Calibration((0.5, 1.5, 2.5, 3.5), 1.25)
    drawn = runs.TrainedOn("drawn <b>eyes", "f00", drawn=True)
    for name, record in {
        "less": runs.ModelRecord("resnet18", way, Calibration()),
        "more": runs.ModelRecord("resnet18", way, cuts, 3, drawn, known.to_record()),
        "worse": runs.ModelRecord("resnet18", way, cuts, 3, drawn, {"mean": "?"}),
    }.items():
        (tmp_path / name).mkdir()
        runs.Run(tmp_path / name).save_model({"fc.weight": torch.zeros(5, 512)}, record)
    less, more, worse = (dr("eval", tmp_path / x, "--card") for x in ("less", "more", "worse"))
    for absent in ("the data set that", "the epoch that", "an operating point:", "no novelty"):
        assert absent in less.stdout
        assert (absent in more.stdout) == (absent == "an operating point:")
    assert "## Data\n\nNot known.\n" in less.stdout
    assert "| network | resnet18, 0.00256 M parameters |" in less.stdout
    assert "at 0.500, 1.500, 2.500, 3.500, chosen for QWK |" in more.stdout
    assert "7 directions" in more.stdout
    assert "**Warning.** It has seen drawn eyes alone" in more.stdout
    assert "drawn \\<b\\>eyes; fingerprint f00" in more.stdout
    assert (worse.exit_code, worse.stdout) == (2, "")
    assert "damaged" in worse.stderr


@pytest.mark.parametrize(
    "idle", [("data",), ("--bootstrap", "0"), ("--format", "json"), ("--tta",)]
)
def test_what_does_nothing_beside_the_card_of_weights_is_refused(world, idle):
    done = dr("eval", world / "runs" / "first" / "model.safetensors", *idle, "--card")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{idle[0].replace('data', 'DATA')} does nothing beside --card of" in done.stderr


@pytest.mark.parametrize("idle", [("--format", "json"), ("--checklist",), ("--by", "eye")])
def test_what_does_nothing_beside_a_card_is_refused(world, idle):
    done = dr("eval", world / "runs" / "first", "--card", *idle)
    assert done.exit_code == 2
    assert "does nothing beside --card" in done.stderr


def test_a_run_is_scored_from_its_files_without_torch(world):
    """Which takes longer to load than everything else that this does."""
    asked = ["eval", str(world / "runs" / "first"), "--bootstrap", "0"]
    code = (
        "import sys; from dr_cli.cli import app\n"
        f"try: app({asked!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'sklearn', 'matplotlib'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n"] == 20
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "{run}"],
        ["eval", "{run}", "--format", "csv"],
        ["report", "{run}", "--format", "json"],
    ],
)
def test_a_reader_that_has_gone_is_no_error(world, words):
    """More is written than a pipe holds, or a little at the very end."""
    asked = [word.format(run=world / "runs" / "first") for word in words]
    with subprocess.Popen(
        [sys.executable, "-m", "dr_cli", *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        running.stdout.close()
        told = running.stderr.read().decode()
        assert running.wait() == 0, told
    assert "Broken" not in told
