"""What the page says of what newer records hold; those of older runs lack it, and stand as well."""

import json
from pathlib import Path
from typing import Any

import pytest

from dr_cli.report import alarm, charts, page, reading
from dr_cli.scoring.of_run import evaluate
from tests.builders.runs import edit, write_run
from tests.report.test_report import Elements


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose summary.json is as dr writes it today."""
    folder = write_run(tmp_path_factory.mktemp("today") / "run")
    summary = {split: evaluate(folder, split=split) for split in ("val", "test")}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def told(run: Path) -> dict[str, Any]:
    return reading.collect([run])["runs"][0]


def test_what_an_alarm_is_worth(told: dict[str, Any]) -> None:
    table = alarm.tabulate_alarm(told["record"])
    assert table is not None
    assert table.headings == ["", "Referable", "Sight-threatening"]
    rows = {row[0]: row[1:] for row in table.rows}
    grades = told["record"]["confusion"]
    referable = sum(map(sum, grades[2:]))
    found, missed = (
        int(rows[f"Diseased and {what}"][0]) for what in ("called (TP)", "missed (FN)")
    )
    assert found + missed == referable
    ppv = told["record"]["referable"]["ppv"]["value"]
    assert rows["PPV: diseased of the called"][0].startswith(f"{ppv:.1%} (")
    assert {f"{k} at a prevalence of {p}%" for k in ("PPV", "NPV") for p in (5, 10, 20)} <= set(
        rows
    )
    assert "(" in rows["Slope (1 is right)"][0]
    assert f"{found} are (PPV {ppv:.1%})" in alarm.tell_alarm(told["record"])


def test_the_figures_of_each_patient_stand_beside_the_images(told: dict[str, Any]) -> None:
    table = alarm.tabulate_units(told["record"])
    assert table is not None
    assert table.headings == ["", "Images", "Patients, worst eye"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Number"] == ["100", "50"]
    assert rows["QWK"][0] != rows["QWK"][1]
    leaking = told["record"] | {"without_leaks": told["record"]["per_patient"] | {"n": 7}}
    table = alarm.tabulate_units(leaking)
    assert table is not None
    assert table.headings[-1] == "Images that do not leak"
    assert table.rows[0][-1] == "7"


def test_the_probability_and_what_acting_on_it_gains_are_drawn(told: dict[str, Any]) -> None:
    drawn = {chart.title: chart for chart in charts.describe_run(told, 0)}
    honesty = drawn["Referable: probability against what is so"]
    bins = [b for b in told["record"]["referable"]["calibration"]["curve"] if b["n"]]
    assert honesty.lines[1].points == [(b["predicted"], b["observed"]) for b in bins]
    benefit = drawn["Decision curve: what acting on it gains"]
    assert [line.name for line in benefit.lines] == ["refer everybody", "run"]
    assert [rule.name for rule in benefit.rules] == ["refer nobody"]
    assert min(y for line in benefit.lines for _, y in line.points) > charts.LEAST_BENEFIT
    assert "Better than referring everybody and nobody at" in benefit.answers[2]


def test_the_flow_is_drawn_with_what_is_lost(run: Path, tmp_path: Path) -> None:
    with edit(run / "summary.json") as summary:
        whole, *splits = summary["test"]["flow"]
    assert [part["split"] for part in splits] == ["train", "val", "test"]
    count = {"images": 790, "patients": 395}
    whole["rows"], whole["found"] = {"images": 800, "patients": 400}, count
    whole["left_out"] = [{"reason": "no such image", "images": 10, "patients": 5}]
    other = write_run(tmp_path / "other")
    with edit(other / "summary.json") as summary:
        summary["test"]["flow"] = [whole, *splits]
    text = Elements(page.render(reading.collect([other]))).text
    flow = text[text.index("Photographs and patients", text.index("Photographs and") + 9) :]
    assert "800 photographs400 patients" in flow
    assert "− 10" in flow
    assert "Left out: 10 no such image." in flow
    assert "training580 photographs290 patients" in flow


def test_intervals_stand_wherever_the_record_has_them(run: Path, told: dict[str, Any]) -> None:
    text = Elements(page.render(reading.collect([run]))).text
    low, high = told["record"]["calibration"]["ci95"]["ece"]
    assert f"({low:.3f}–{high:.3f}), Brier" in text
    low, high = told["record"]["per_grade"][0]["ci95"]["recall"]
    assert f"({low:.3f}–{high:.3f})" in text
    assert "the network's QWK less its: " in text


def test_an_older_record_has_none_of_it(tmp_path: Path) -> None:
    [old] = reading.collect([write_run(tmp_path / "old")])["runs"]
    assert alarm.tabulate_alarm(old["record"]) is None
    assert alarm.tabulate_units(old["record"]) is None
    assert len(charts.describe_run(old, 0)) == 6
    assert "Photographs and patients" not in page.render(reading.collect([tmp_path / "old"]))


def test_the_card_says_what_guidelines_ask_for_and_what_only_a_person_can_tell(run: Path) -> None:
    data = reading.collect([run])
    card = {item["title"]: item["text"] for item in data["card"]}
    assert "STARD-AI and TRIPOD+AI" in card["For a paper"]
    for form in (page.render(data), page.to_markdown(data)):
        assert "Only you can tell: who the patients were" in form
