"""The report: what is read from run folders, and what the page says of it."""

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import sklearn.metrics

from dr_cli import words
from dr_cli.errors import UsageError
from dr_cli.grades import Calibration
from dr_cli.plots import heat
from dr_cli.report import answers, band, charts, curves, gallery, page, paper, reading, svg
from dr_cli.runs import DataRecord, ModelRecord, Run, RunConfig, read_record
from dr_cli.scoring.metrics import FIGURES, Figure
from tests.builders.runs import edit, figure, jpeg, replace_in, write_pictures, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "resnet18", seed=0, qwk=0.6)
    write_run(
        tmp_path / "runs" / "resnet50-pretrained", seed=1, qwk=0.7, arch="resnet50", pretrained=True
    )
    return tmp_path / "runs"


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._inside or self._inside[-1] not in ("style", "script"):
            self.text += data


def test_dictionary_is_plain_json(runs: Path) -> None:
    data = reading.collect([runs])
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["warnings"] == []
    assert [run["name"] for run in data["runs"]] == ["resnet50-pretrained", "resnet18"]
    assert data["runs"][0]["history"][0]["test_qwk"] is None  # an empty cell
    assert data["runs"][0]["seconds_per_epoch"] == 17.5


def test_best_run_is_chosen_by_validation(runs: Path) -> None:
    with edit(runs / "resnet50-pretrained" / "summary.json") as told:
        told["test"]["qwk"] = figure(0.1)
    data = reading.collect([runs])
    assert data["best"] == "resnet50-pretrained"
    assert "validation QWK" in data["summary"][0]
    assert "QWK 0.100 (0.050–0.150)" in data["summary"][0]
    assert "commonest grade scores QWK 0.000 and accuracy 33.0%" in data["summary"][1]


def test_a_best_run_picked_on_what_it_is_reported_on_is_said(runs: Path) -> None:
    assert not any("optimistic" in line for line in reading.collect([runs])["summary"])
    with edit(runs / "resnet18" / "summary.json") as told:
        del told["val"]
    data = reading.collect([runs])
    assert "best test QWK" in data["summary"][0]
    assert any("picked by its QWK on the very images" in line for line in data["summary"])
    with edit(runs / "resnet50-pretrained" / "summary.json") as told:
        del told["test"]
    mixed = reading.collect([runs])["summary"][0]
    assert "has the best QWK: on 100 validation images" in mixed
    alone = reading.collect([runs / "resnet18"])["summary"]
    assert not any("picked by" in line for line in alone)  # nothing was picked


def test_runs_that_picked_on_test_or_on_other_validation_images_are_told(runs: Path) -> None:
    with edit(runs / "resnet18" / "config.json") as config:
        config["options"]["val"] = "test"
    assert any("picked by its QWK" in line for line in reading.collect([runs])["summary"])
    with edit(runs / "resnet18" / "config.json") as config:
        config["options"]["val"] = "0.15"
    name = runs / "resnet18" / "predictions-val.csv"
    name.write_text(name.read_text().replace("patient0val", "another"))
    summary = reading.collect([runs])["summary"]
    assert any("validated on different images" in line for line in summary)


def test_the_builder_writes_what_a_run_holds(tmp_path: Path) -> None:
    config = json.loads((write_run(tmp_path / "run") / "config.json").read_text(encoding="utf-8"))
    assert config.keys() == {f.name for f in fields(RunConfig)} - {"chosen"}
    assert config["data"].keys() == {f.name for f in fields(DataRecord)}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / where / "resnet18") for where in ("a", "b")]
    assert [run["name"] for run in reading.collect(folders)["runs"]] == ["a/resnet18", "b/resnet18"]


def test_what_cannot_be_reported(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        reading.collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no finished run"):
        reading.collect([tmp_path / "empty"])
    (runs / "resnet18" / "summary.json").unlink()
    with pytest.raises(UsageError, match="--resume"):
        reading.collect([runs / "resnet18"])
    (runs / "resnet18" / "summary.json").write_text("{half", encoding="utf-8")
    with pytest.raises(UsageError, match=r"summary\.json cannot be read"):
        reading.collect([runs / "resnet18"])


@pytest.mark.parametrize("row", ["img/x.jpg,none,,,,,,,,", "x,7,,,0.2,0.2,0.2,0.2,0.2,0", "x,0"])
def test_a_bad_prediction_row_is_named(runs: Path, row: str) -> None:
    table = runs / "resnet18" / "predictions-test.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[2] = row
    table.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match=r"predictions-test\.csv, line 3"):
        reading.collect([runs / "resnet18"])


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.csv", "predictions-test.csv", "splits.csv"]
)
def test_what_every_run_has_is_asked_for(runs: Path, name: str) -> None:
    (runs / "resnet18" / name).write_bytes(b"\xff\xfe half")
    with pytest.raises(UsageError, match=f"{re.escape(name)} (cannot be read|has no column)"):
        reading.collect([runs / "resnet18"])
    (runs / "resnet18" / name).unlink()
    with pytest.raises(UsageError, match=re.escape(name)):
        reading.collect([runs / "resnet18"])


@pytest.mark.parametrize("option", ["arch", "epochs", "size"])
def test_an_option_that_config_lacks_is_named(runs: Path, option: str) -> None:
    with edit(runs / "resnet18" / "config.json") as config:
        del config["options"][option]
    with pytest.raises(UsageError, match=rf"resnet18.config\.json holds no {option} as dr train"):
        reading.collect([runs / "resnet18"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", None), ("n", "100"), ("qwk", 0.7), ("calibration", []), ("failed", {})],
)
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_figure_that_summary_lacks_is_named(
    runs: Path, split: str, name: str, value: object
) -> None:
    with edit(runs / "resnet18" / "summary.json") as summary:
        summary[split][name] = value
    with pytest.raises(UsageError, match=rf"resnet18.summary\.json holds no {name} as dr train"):
        reading.collect([runs / "resnet18"])
    with edit(runs / "resnet18" / "summary.json") as summary:
        del summary[split][name]
    with pytest.raises(UsageError, match=rf"summary\.json holds no {name} as dr train"):
        reading.collect([runs / "resnet18"])


def test_what_is_not_known_of_a_figure_is_shown_as_unknown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with edit(run / "summary.json") as summary:
        del summary["test"]["patients"], summary["test"]["calibration"]["brier"]
        del summary["test"]["referable"]["threshold"], summary["test"]["qwk"]["value"]
    text = Elements(page.render(reading.collect([run]))).text
    assert "ECE 0.050, Brier n/a, NLL 1.100" in text
    assert "Referable from probabilityn/a (sensitivity=0.90" in text
    assert "QWKn/a" in text


def test_a_new_figure_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES, "kappa", Figure("Kappa without weights", percent=True))
    run = write_run(tmp_path / "run")
    with edit(run / "summary.json") as summary:
        summary["test"]["kappa"] = figure(0.5)
    text = Elements(page.render(reading.collect([run]))).text
    assert "Kappa without weights50.0% (45.0%–55.0%)" in text


def test_a_split_without_its_grade_is_named(runs: Path) -> None:
    replace_in(runs / "resnet18" / "splits.csv", "jpg,1,", "jpg,one,")
    with pytest.raises(UsageError, match=r"splits\.csv, row 3, column grade: 'one'"):
        reading.collect([runs / "resnet18"])


def test_a_cross_validation_is_one_run_without_weights(tmp_path: Path) -> None:
    """As `crossval.pool` leaves it: no weights, no validation; its folds are not runs beside it."""
    pool = write_run(tmp_path / "pool", folds=2)
    for fold in (1, 2):
        write_run(pool / f"fold-{fold}")
    for name in ("model.safetensors", "predictions-val.csv"):
        (pool / name).unlink()
    run = Run(pool)
    calibration = Calibration((0.5, 1.5, 2.5, 3.5), None)
    with edit(pool / "config.json") as config:
        config["chosen"] = calibration.to_record()
    with edit(pool / "summary.json") as summary:
        del summary["val"]
    [told] = reading.collect([tmp_path])["runs"]
    assert (told["name"], told["best_epoch"], told["val"]) == ("pool", None, None)
    assert told["decision"] == {
        "kind": "thresholds",
        "thresholds": [0.5, 1.5, 2.5, 3.5],
        "objective": "qwk",
    }
    assert run.calibration() == calibration
    text = Elements(page.render(reading.collect([tmp_path]))).text
    assert "weights of epoch" not in text
    assert "cut from the expected grade" in text


def test_page_is_whole_and_reaches_for_nothing(runs: Path) -> None:
    html = page.render(reading.collect([runs]))
    elements = Elements(html)
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in elements.tags:
        for key in ("src", "href", "popovertarget", "aria-labelledby"):
            target = attrs.get(key)
            if target is not None and target != "data:,":
                assert target.removeprefix("#") in ids, (tag, key, target)
    assert not re.search(r"https?://|@import|url\(", html)
    matrices = [
        a for tag, a in elements.tags if tag == "table" and "confusion" in a.get("class", "")
    ]
    assert len(matrices) == 1 + 2 + 2  # the best's in the summary, all side by side, one a run
    assert "no diagnosis" in elements.text
    assert "n/a" in elements.text  # the undefined referable AUC
    assert len(html) < 400_000


def test_comparison_chart_holds_every_run_and_split(runs: Path) -> None:
    html = page.render(reading.collect([runs]))
    accuracy = re.search(r'<svg class="chart".*?</svg>', html, re.S)
    assert accuracy is not None
    lines = re.findall(r'<g class="line( dashed)?" style="--c:var\(--run-(\d)\)">', accuracy[0])
    assert lines == [(" dashed", "0"), ("", "0"), (" dashed", "1"), ("", "1")]
    for text in ("resnet18, training", "resnet50-pretrained, testing"):
        assert text in html


def test_curves_have_the_baselines_and_the_kept_epoch(runs: Path) -> None:
    for name in ("resnet18", "resnet50-pretrained"):
        with edit(runs / name / "summary.json") as told:
            told["test"]["baselines"]["fellow_eye"] = {"accuracy": 0.8, "qwk": 0.7}
    accuracy, qwk, _ = charts.compare_runs(*collected(runs))
    assert [(rule.name, rule.y) for rule in accuracy.rules] == [
        ("commonest grade", 0.33), ("other eye's grade", 0.8)
    ]  # fmt: skip
    assert [rule.y for rule in qwk.rules] == [0.0, 0.7]
    assert [line.kept for line in accuracy.lines] == [None, 3, None, 3]
    drawn = accuracy.draw()
    assert drawn.count('class="rule"') == drawn.count('class="kept"') == 2
    with edit(runs / "resnet18" / "summary.json") as told:
        told["test"]["baselines"]["fellow_eye"]["qwk"] = 0.6
    _, qwk, _ = charts.compare_runs(*collected(runs))
    assert [rule.y for rule in qwk.rules] == [0.0], "it is not the same for both"


def collected(runs: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    told = reading.collect([runs])["runs"]
    return told, told[0]


def test_the_band_says_each_figure_beside_what_needs_no_network(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with edit(run / "summary.json") as told:
        told["test"]["baselines"]["fellow_eye"] = {"accuracy": 0.8, "qwk": -0.1}
    qwk, accuracy, auc, found, passed = band.list_tiles(reading.collect([run])["runs"][0]["record"])
    assert (qwk.value, qwk.interval) == ("0.580", "0.530–0.630")
    assert qwk.against == "commonest grade: 0.000, other eye's grade: −0.100"
    assert qwk.levels == (0.0, 0.0), "a level below 0 stands at the end of the line"
    assert qwk.gauge == pytest.approx({"value": 0.58, "low": 0.53, "high": 0.63})
    assert "commonest grade: 33.0%, other eye's grade: 80.0%" in accuracy.against
    assert (auc.value, auc.interval, auc.gauge) == ("n/a", "", None)
    assert found.heading == "Sensitivity, referable at 0.310"
    assert (found.value, passed.value) == ("85.0%", "80.0%")
    assert "everybody: 100%" in found.against


def test_each_figure_answers_what_is_asked_of_it(runs: Path) -> None:
    text = Elements(page.render(reading.collect([runs]))).text
    assert text.count("What is it?") == text.count("What is good?") == 1 + 3 + 2 * 6
    assert "it finds 85 of 100 eyes with referable retinopathy, misses 15, and refers 20" in text
    assert "Validation's is lowest in epoch 4 of 4; it was still falling" in text


def test_the_answers_of_a_confusion_matrix_count_its_cells() -> None:
    counts = [[9, 0, 1, 0, 2], [0, 5, 0, 0, 0], [3, 1, 6, 0, 0], [0, 0, 0, 4, 0], [1, 0, 0, 0, 7]]
    *_, here = answers.of_confusion({"confusion": counts, "n": 39})
    assert here == (
        "Of 22 images of grade 2 or more, 5 are called 0 or 1; "
        "7 of 39 images are off by more than one grade."
    )


def test_confusion_cells_agree_with_the_images_listed(runs: Path) -> None:
    run = reading.collect([runs / "resnet18"])["runs"][0]
    for true, row in enumerate(run["record"]["confusion"]):
        for predicted, count in enumerate(row):
            assert len(run["cells"].get(f"{true}-{predicted}", [])) == count


@pytest.mark.parametrize("listed", [1, 3])
def test_a_cell_lists_the_most_confident(
    runs: Path, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    whole = reading.collect([runs / "resnet18"])["runs"][0]["cells"]["0-0"]
    monkeypatch.setattr(reading, "MOST_IN_A_CELL", listed)
    capped = reading.collect([runs / "resnet18"])["runs"][0]["cells"]["0-0"]
    assert capped == whole[:listed]
    monkeypatch.setattr(reading, "MOST_IN_CELLS", 2)  # of two runs, one image each
    assert reading.collect([runs])["runs"][1]["cells"]["0-0"] == whole[:1]
    assert capped[0]["probability"] == max(image["probability"] for image in whole)


def test_without_pictures_nothing_names_a_patient(runs: Path) -> None:
    data = reading.collect([runs], no_pictures=True)
    for text in (json.dumps(data), page.render(data)):
        assert "patient1" not in text
        assert "secret-clinic" not in text
    assert "secret-clinic" in page.render(reading.collect([runs]))


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no < in a folder's name")
def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)<"
    run = write_run(tmp_path / evil, val='"><img src=x onerror=alert(1)>')
    replace_in(run / "predictions-test.csv", "img/", "<b onclick=alert(1)>")
    html = page.render(reading.collect([run]))
    tags = Elements(html).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not any(key.startswith("on") for _, attrs in tags for key in attrs)
    assert not any(tag == "img" for tag, _ in tags)
    assert "&lt;script&gt;alert(1)&lt;" in html


def test_command_repeats_the_run(runs: Path) -> None:
    commands = [run["command"] for run in reading.collect([runs])["runs"]]
    assert commands[1] == "dr train /data/secret-clinic --epochs 4 --size 224"
    assert commands[0] == (
        "dr train /data/secret-clinic --arch resnet50 --pretrained --epochs 4 --size 224"
    )


def test_runs_on_other_images_are_not_compared_silently(runs: Path) -> None:
    replace_in(runs / "resnet18" / "config.json", "ab12", "cd34")
    assert "cannot be compared" in reading.collect([runs])["warnings"][0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.31, 0.74, [0.4, 0.5, 0.6, 0.7]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert svg.place_ticks(low, high) == expected


def test_a_single_epoch_still_draws() -> None:
    chart = svg.Chart("b", [svg.Line("x", [(1, 0.5)])], "a").draw()
    assert "nan" not in chart
    assert chart.count("<title>") == 1
    assert svg.Chart("b", [], "a").draw() == ""


@pytest.mark.parametrize("digits", [6, 1])
@pytest.mark.parametrize("n", [2, 3, 8, 400])
def test_roc_is_scikit_learns(n: int, digits: int) -> None:
    rng = np.random.default_rng(n)
    score = rng.random(n).round(digits)  # with ties and without
    truth = rng.random(n) < score
    truth[:2] = True, False
    points = curves.measure_roc(truth, score)
    false, true, _ = sklearn.metrics.roc_curve(truth, score)
    np.testing.assert_array_equal(points, np.column_stack([false, true]))
    one = curves.measure_roc(truth, np.full(n, 0.5))
    assert one is not None
    assert one.tolist() == [[0, 0], [1, 1]]
    assert curves.measure_roc(np.ones(n, bool), score) is None


def test_the_roc_of_a_run_is_of_referable_retinopathy(runs: Path) -> None:
    table = Run(runs / "resnet18").predictions("test")
    area = sklearn.metrics.roc_auc_score(table["grade"] >= 2, table[["p2", "p3", "p4"]].sum(axis=1))
    roc = np.array(reading.collect([runs / "resnet18"])["runs"][0]["curves"]["roc"])
    assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(area, abs=1e-3)


def test_reliability_and_histogram_count_every_image(runs: Path) -> None:
    run = reading.collect([runs / "resnet18"])["runs"][0]
    for when in ("before", "after"):
        assert sum(n for _, _, n in run["curves"]["reliability"][when]) == 100
    assert [sum(counts) for counts in run["curves"]["expected"]] == run["record"]["grade_counts"]
    before, after = (
        np.average([p for p, _, _ in bins], weights=[n for _, _, n in bins])
        for bins in (run["curves"]["reliability"][when] for when in ("before", "after"))
    )
    assert before > after  # a temperature above 1 makes less sure


def test_no_roc_with_one_class(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = run / "predictions-test.csv"
    text = re.sub(r"(?m)^(img[^,]*),\d", r"\1,0", table.read_text(encoding="utf-8"))
    table.write_text(text, encoding="utf-8")
    data = reading.collect([run])
    assert data["runs"][0]["curves"]["roc"] is None
    assert "Referable retinopathy: ROC" not in page.render(data)


def write_splits(run: Path, *rows: str) -> None:
    text = "\n".join(["path,grade,patient,eye,split,reason", *rows])
    (run / "splits.csv").write_text(text, encoding="utf-8")


def test_splits_and_the_fellow_eyes_in_train(runs: Path) -> None:
    write_splits(
        runs / "resnet18", "a,0,p1,left,train,", "b,2,p1,right,test,", "c,4,p2,left,test,",
        "d,,p3,left,,no grade",
    )  # fmt: skip
    train, test = reading.collect([runs / "resnet18"])["runs"][0]["splits"]
    assert (train["n"], train["patients"], train["patient_also_in_train"]) == (1, 1, None)
    assert (test["n"], test["patients"], test["patient_also_in_train"]) == (2, 2, 1)
    assert test["grade_counts"] == [0, 0, 1, 0, 1]


def test_csv_and_markdown_say_what_the_page_says(runs: Path) -> None:
    data = reading.collect([runs])
    second, first = csv.DictReader(page.to_csv(data).splitlines())
    assert second["name"] == "resnet50-pretrained"
    assert float(second["qwk"]) == pytest.approx(0.68)
    assert float(second["qwk_low"]) == pytest.approx(0.63)
    assert first["referable_auc"] == ""  # undefined
    text = page.to_markdown(data)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(block) for block in blocks] == [4, 3]  # runs; pairs of runs
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    assert "0.680 (0.630–0.730)" in blocks[0][2]
    assert blocks[1][2].startswith("| resnet")
    assert "no diagnosis" in text


def test_markdown_keeps_a_name_in_its_cell(tmp_path: Path) -> None:
    data = reading.collect([write_run(tmp_path / "run")])
    data["runs"][0]["name"] = "a|b\n<b>*c*"
    data["card"].append({"title": "Data", "text": "<script>"})
    assert r"\<script\>" in page.to_markdown(data)
    assert r"| a\|b \<b\>\*c\* |" in page.to_markdown(data)


def test_one_run_alone_is_not_the_best(runs: Path) -> None:
    assert 'class="tag"' in page.render(reading.collect([runs]))
    assert 'class="tag"' not in page.render(reading.collect([runs / "resnet18"]))


def test_a_cell_can_be_read_on_any_ground() -> None:
    for share in np.linspace(0, 1, 101):
        for ground, ink in re.findall(r"rgb\((.*?)\);--\w+-ink:#(\w+)", svg.shade(share)):
            colour = np.array([int(v) for v in ground.split(",")]) / 255  # WCAG 2.2's luminance
            linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
            light = linear @ [0.2126, 0.7152, 0.0722]
            ratio = {"000": (light + 0.05) / 0.05, "fff": 1.05 / (light + 0.05)}[ink]
            assert ratio >= 4.5, (share, ground, ink)


def test_figures_for_a_paper(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "figures"
    saved = paper.save(reading.collect([runs]), folder)
    names = {"accuracy", "qwk", "roc", "confusion-resnet18", "confusion-resnet50-pretrained"}
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {file.name for file in folder.iterdir()} == {file.name for file in saved} == expected
    text = (folder / "accuracy.svg").read_text(encoding="utf-8")
    assert "resnet50-pretrained, testing" in text
    sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)}
    assert sizes
    assert min(sizes) >= 8  # matplotlib writes points as px of a 72 dpi drawing
    with PIL.Image.open(folder / "accuracy.png") as image:
        assert image.width == 1416  # 12 cm at 300 dpi
    for file in folder.glob("*.png"):
        assert_margins_are_white(file)


def assert_margins_are_white(file: Path) -> None:
    """Nothing is cut: not one dark pixel stands on the edge of the picture."""
    with PIL.Image.open(file) as image:
        pixels = np.asarray(image.convert("L"))
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    assert min(edge.min() for edge in edges) > 200, file.name


def test_figures_of_runs_with_odd_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("a b", "a-b", "_$x^2$")):
        write_run(tmp_path / "runs" / name, seed=seed)
    saved = paper.save(reading.collect([tmp_path / "runs"]), tmp_path / "figures")
    assert len({file.name.lower() for file in saved}) == len(saved) == 12
    text = (tmp_path / "figures" / "accuracy.svg").read_text(encoding="utf-8")
    assert ">_$x^2$, testing<" in text


def test_long_names_are_not_cut_from_the_legend(tmp_path: Path) -> None:
    name = "resnet18-pretrained-oversample-standard-ce-mse-as-somebody-named-it"
    write_run(tmp_path / "runs" / name)
    paper.save(reading.collect([tmp_path / "runs"]), tmp_path / "figures")
    for file in (tmp_path / "figures").glob("*.png"):
        assert_margins_are_white(file)
    with PIL.Image.open(tmp_path / "figures" / "roc.png") as image:
        assert image.width == 1416


def test_every_pair_of_runs_is_compared(runs: Path) -> None:
    data = reading.collect([runs])
    [pair] = data["comparisons"]
    assert (pair["a"], pair["b"]) == ("resnet50-pretrained", "resnet18")
    tables = [Run(runs / name).predictions("test") for name in (pair["a"], pair["b"])]
    kappas = [
        sklearn.metrics.cohen_kappa_score(table["grade"], table["predicted"], weights="quadratic")
        for table in tables
    ]
    assert pair["qwk"]["difference"] == pytest.approx(kappas[0] - kappas[1])
    low, high = pair["qwk"]["ci95"]
    assert low < pair["qwk"]["difference"] < high
    text = Elements(page.render(data)).text
    assert words.difference(pair["qwk"]) in text
    assert words.mcnemar(pair["mcnemar_grade"]) in text
    first, second = (  # at the threshold of the weights, 0.31
        (table[["p2", "p3", "p4"]].sum(axis=1) >= 0.31) == (table["grade"] > 1) for table in tables
    )
    assert pair["mcnemar_referable"]["a_only"] == (first & ~second).sum() > 0


def test_three_runs_make_a_matrix_corrected_for_three_comparisons(runs: Path) -> None:
    write_run(runs / "third", seed=2)
    data = reading.collect([runs])
    assert len(data["comparisons"]) == 3
    html = page.render(data)
    assert "p corrected for 3 comparisons (max T)" in html
    table = html[html.index("<caption>QWK, row less column") :].split("</table>")[0]
    rows = [re.findall(r"<td>(?:<b>)?([–+−\d.]+)", row) for row in table.split("<tr>")[2:]]
    differences = [pair["qwk"]["difference"] for pair in data["comparisons"]]
    assert rows[0] == ["–", *map(words.signed, differences[:2])]
    assert [row[2] for row in rows] == [*map(words.signed, differences[1:]), "–"]
    assert rows[2][0] == words.signed(-differences[1])


def test_runs_on_other_images_are_not_paired(runs: Path) -> None:
    replace_in(runs / "resnet18" / "predictions-test.csv", "img/", "other/")
    data = reading.collect([runs])
    assert data["comparisons"] == []
    assert "cannot be compared" in data["warnings"][0]


def test_the_summary_names_data_splits_and_leaks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_splits(run, "a,0,p1,left,train,", "b,2,p1,right,test,")
    with edit(run / "summary.json") as told:
        told["test"]["leaks"] = {"fellow_eye_in_train": 80, "duplicates_across_splits": 0}
        told["test"]["baselines"]["fellow_eye"] = {"accuracy": 0.8, "qwk": 0.9}
    data = reading.collect([run])
    said = " ".join(data["summary"])
    assert "Data: secret-clinic, layout idrid: 1 training, 1 test images." in said
    assert "80 of these 100 images have their fellow eye in train or validation" in said
    assert "QWK 0.580 does not beat the 0.900" in said
    card = {item["title"]: item["text"] for item in data["card"]}
    assert card["Data"] == (
        "secret-clinic, layout idrid: 1 training, 1 test images; fingerprint ab12."
    )
    shared = reading.collect([run], no_pictures=True)
    assert "secret" not in json.dumps(shared)
    assert "layout idrid: 1 training" in " ".join(shared["summary"])
    with edit(run / "summary.json") as told:
        told["test"]["leaks"]["fellow_eye_in_train"] = 0
    assert "duplicates were not looked for" in " ".join(reading.collect([run])["summary"])
    with edit(run / "summary.json") as told:  # since there is a flow, a 0 is a count
        told["test"]["flow"] = []
    assert "No fellow eye and no duplicate" in " ".join(reading.collect([run])["summary"])
    with edit(run / "summary.json") as told:
        told["test"]["patients"] = None
    said = " ".join(reading.collect([run])["summary"])
    assert "No duplicate of these images stands" in said
    assert "whose eyes they are is not known" in said
    assert "fellow eye" not in said.partition("Data:")[2]


def test_both_targets_and_both_calibrations_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with edit(run / "summary.json") as told:
        told["test"]["sight_threatening"] = told["test"]["referable"] | {"threshold": 0.123}
        told["test"]["calibration"]["before"] = {"ece": 0.21, "brier": 0.61, "nll": 2.1}
    text = Elements(page.render(reading.collect([run]))).text
    assert "0.310 (sensitivity=0.90, val of x)" in text
    assert "Sight-threatening from probability0.123 (sensitivity=0.90" in text
    assert "Sensitivity, sight-threatening85.0% (80.0%–90.0%)" in text
    assert "Calibration before temperatureECE 0.210, Brier 0.610, NLL 2.100" in text
    assert "Calibration after temperature 1.300ECE 0.050" in text


def test_the_weights_say_their_epoch_and_decision(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run"))
    record = read_record(run.folder)
    cut = ModelRecord("resnet18", record.preprocessing, Calibration((0.5, 1.5, 2.5, 3.5)), epoch=2)
    run.save_model({}, cut)
    html = page.render(reading.collect([run.folder]))
    assert "weights of epoch 2; the grade is cut from the expected grade" in html
    run["model.safetensors"].write_bytes(b"half")
    with pytest.raises(UsageError, match=r"model\.safetensors is no whole safetensors file"):
        reading.collect([run.folder])


def test_drawn_eyes_are_said_to_be_drawn(tmp_path: Path) -> None:
    assert reading.collect([write_run(tmp_path / "run")])["warnings"] == []
    [warning] = reading.collect([write_run(tmp_path / "drawn", drawn=True)])["warnings"]
    assert "nothing about real patients" in warning


def test_command_names_the_columns_that_were_given(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with edit(run / "config.json") as config:
        config["data"]["columns"] = {"grade": "dr level", "grade_map": "1=0,2=1"}
    command = reading.collect([run])["runs"][0]["command"]
    asked = "--grade-column 'dr level' --grade-map 1=0,2=1 --epochs"
    assert command.startswith(f"dr train /data/secret-clinic {asked}")
    with edit(run / "config.json") as config:
        config["data"]["source"] = "/data/secret-clinic/readers.csv"
    command = reading.collect([run])["runs"][0]["command"]
    assert command.startswith(f"dr train /data/secret-clinic/readers.csv {asked}")


def test_time_against_quality_has_a_point_a_run(runs: Path) -> None:
    html = page.render(reading.collect([runs]))
    chart = html[html.index("QWK against time of training") :].split("</figure>")[0]
    assert chart.count("<title>") == 2
    assert "resnet18, 70 s, QWK 0.580" in chart
    assert "against time" not in page.render(reading.collect([runs / "resnet18"]))


def test_pictures_are_shown_with_what_was_said_of_them(runs: Path) -> None:
    entries = write_pictures(runs / "resnet18")
    data = reading.collect([runs])
    assert data["runs"][1]["pictures"] == entries
    assert data["runs"][1]["pictures_left_out"] == 0
    assert data["runs"][0]["pictures"] == []
    html = page.render(data)
    shown = [attrs for tag, attrs in Elements(html).tags if tag == "img"]
    wanted = [entry[what] for entry in entries for what in ("photograph", "heatmap")]
    assert [img["src"] for img in shown] == [f"data:image/jpeg;base64,{text}" for text in wanted]
    assert "img-src data:" in html
    assert shown[0]["alt"] == "Photograph img/mistake0.jpg, cropped to its field"
    assert "evidence for grade 0 No DR" in str(shown[1]["alt"])
    text = Elements(html).text
    assert "True 4 Proliferative DRPredicted 0 No DR" in text
    assert text.index("Mistakes: the furthest") < text.index("Right: the most confident")
    assert "Probabilities: grade 0 50%, grade 1 20%" in html
    assert "holds 13 photographs of patients" in text


def test_a_budget_is_shared_by_mistakes_and_right_ones(tmp_path: Path) -> None:
    entries = write_pictures(write_run(tmp_path / "run"))
    one = max(map(gallery.weigh, entries))
    few = gallery.fit(entries, 5 * one)
    assert [(e["kind"], e["grade"]) for e in few] == [
        ("mistake", 4), ("mistake", 3), ("mistake", 1), ("right", 0), ("right", 1)
    ]  # fmt: skip
    assert gallery.fit(entries, 13 * one) == entries
    assert gallery.fit(entries, 1) == []


def test_runs_share_a_page_and_it_says_what_it_leaves_out(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs / "third")  # without pictures: it takes no share
    for name in ("resnet18", "resnet50-pretrained"):
        entries = write_pictures(runs / name)
    one = max(map(gallery.weigh, entries))
    monkeypatch.setattr(gallery, "MOST_BYTES", 8 * one)
    data = reading.collect([runs])
    assert [len(run["pictures"]) for run in data["runs"]] == [4, 4, 0]
    assert [run["pictures_left_out"] for run in data["runs"]] == [9, 9, 0]
    assert "4 of 13 are shown" in page.render(data)


def test_without_pictures_there_is_no_picture(runs: Path) -> None:
    write_pictures(runs / "resnet18")
    data = reading.collect([runs], no_pictures=True)
    for text in (json.dumps(data), page.render(data)):
        assert not re.search(r"/9j/|mistake0|<img", text)  # /9j/ begins every JPEG in base64
    assert "No photograph, file name or patient" in page.render(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"photograph": jpeg((0, 0, 0))[:-1]},
        {"photograph": jpeg((0, 0, 0)) + '" onerror="alert(1)'},
        {"heatmap": "<svg/>"},
        {"heatmap": None},
        {"path": None},
        {"path": "\ud800.jpg"},
        {"grade": 5},
        {"grade": True},
        {"predicted": "1"},
        {"kind": "<b>"},
        {"probabilities": [0.5, 0.5]},
        {"probabilities": [0.2, 0.2, 0.2, 0.2, float("nan")]},
    ],
    ids=lambda changed: "-".join(f"{key}={str(value)[-9:]}" for key, value in changed.items()),
)
def test_a_malformed_picture_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    write_pictures(write_run(tmp_path / "run"), **changed)
    with pytest.raises(UsageError, match=r"pictures\.json cannot be read"):
        reading.collect([tmp_path])


@pytest.mark.parametrize("text", ["{half", "{}", '[{"kind": "mistake"}]', "[1]", "null"])
def test_a_malformed_file_of_pictures_is_refused(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "run")
    (run / "pictures.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"pictures\.json cannot be read"):
        reading.collect([tmp_path])


def test_a_pictures_name_is_escaped(tmp_path: Path) -> None:
    write_pictures(write_run(tmp_path / "run"), path='"><script>alert(1)</script>')
    tags = Elements(page.render(reading.collect([tmp_path]))).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not any(key.startswith("on") for _, attrs in tags for key in attrs)


def test_the_key_has_the_heatmaps_colours(runs: Path) -> None:
    write_pictures(runs / "resnet18")
    html = page.render(reading.collect([runs]))
    key = html[html.index('<linearGradient id="heat-2">') :].split("</linearGradient>")[0]
    stops = re.findall(r'offset="(.*?)" stop-color="#(\w+)" stop-opacity="(.*?)"', key)
    assert [colour for _, colour, _ in stops] == heat.VIRIDIS.split()[::3]
    assert (stops[0][::2], stops[-1][::2]) == (("0", "0"), ("1", "0.6"))


def test_whose_eyes_they_are_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "names patients' images" in reading.collect([run])["privacy"]
    write_pictures(run)
    assert "holds 13 photographs of patients" in reading.collect([run])["privacy"]
    drawn = write_run(tmp_path / "drawn", drawn=True)
    assert "holds no patient's image" in reading.collect([drawn])["privacy"]
    assert "names patients' images" in reading.collect([tmp_path])["privacy"]


def test_the_sample_set_is_named_without_its_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", drawn=True, size=128)
    data = reading.collect([run])
    assert data["runs"][0]["data"]["root"] == "the built-in sample set"
    assert data["runs"][0]["command"] == "dr train --epochs 4 --size 128"
    assert "/home/me" not in page.render(data)
    assert "/home/me" not in json.dumps(data)


def test_a_set_elsewhere_is_not_taken_for_the_sample_set(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", drawn=True)
    replace_in(run / "config.json", "/home/me/.cache/dr/sample/1-600-224-0", "/data/eyes")
    assert reading.collect([run])["runs"][0]["data"]["root"] == "/data/eyes"


def test_without_pictures_no_path_of_the_machine_is_left(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", weights="/home/me/start.pth", val="/home/me/other")
    [told] = reading.collect([run], no_pictures=True)["runs"]
    assert told["command"] == "dr train DATA --weights FILE --epochs 4 --size 224 --val PATH"
    assert not re.search("/home/me|/data/", json.dumps(told))


def test_where_the_time_went(runs: Path) -> None:
    write_splits(runs / "resnet50-pretrained", "a,0,,,test,")
    second, first = reading.collect([runs])["runs"]
    assert first["phases"][1] == [2, 10, 7]  # 580 at 58 images a second, of 17 s
    assert second["phases"] == []  # it says not how many images it trained on
    html = page.render(reading.collect([runs]))
    assert html.count("<figcaption>Where the time went") == 1
    training = sum(580 / (60 - e) for e in range(1, 5))
    assert f"training: {training:.0f} s ({training / 70:.0%})" in html
    assert f"predicting validation and test: {70 - training:.0f} s" in html


def test_a_report_needs_no_network(runs: Path) -> None:
    """A process of its own, because other tests here have loaded torch."""
    write_pictures(runs / "resnet18")
    code = "import sys; from dr_cli.report import page, reading; "
    code += "html = page.render(reading.collect([sys.argv[1]]))"
    code += "; print(len(html) > 1e5, *{'torch', 'sklearn', 'matplotlib'} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code, str(runs)], check=True, capture_output=True, text=True
    )
    assert told.stdout.split() == ["True"]


EXAMPLE = Path(__file__).parents[2] / "examples" / "report.html"


def test_the_example_is_of_drawn_eyes_and_of_no_machine() -> None:
    html = EXAMPLE.read_text(encoding="utf-8")
    assert len(html.encode("utf-8")) < 1_000_000
    assert "Every eye in this page is drawn by a program" in html
    elements = Elements(html)
    pictures = [attrs["src"] for tag, attrs in elements.tags if tag == "img"]
    assert len(pictures) >= 20
    for source in pictures:
        data = base64.b64decode(str(source).removeprefix("data:image/jpeg;base64,"), validate=True)
        PIL.Image.open(io.BytesIO(data), formats=("JPEG",)).load()
    assert sum(tag == "section" and a.get("class") == "run" for tag, a in elements.tags) == 2
    words_of_it = re.sub(r"data:image/jpeg;base64,[^\"]*", "", html)
    for place in (r"/(home|root|tmp|work|Users|var|mnt)/", r"\b[A-Z]:\\", r"https?://", r"\\\\"):
        assert not re.search(place, words_of_it), place
