"""An evaluation as a notebook shows it."""

import json

import pytest

from dr_cli.runs import Run
from dr_cli.scoring.evaluation import Evaluation
from dr_cli.scoring.of_run import evaluate
from tests.builders.runs import write_run


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return evaluate(Run(write_run(tmp_path_factory.mktemp("runs") / "one")), bootstrap=20)


class Printer:
    def text(self, told):
        self.told = told


def test_it_is_a_dict_to_everybody_else(record):
    assert isinstance(record, Evaluation)
    assert json.loads(json.dumps(record)) == record == dict(record)
    assert repr(record) == repr(dict(record))


def test_its_figures_stand_beside_the_baselines(record):
    html = record._repr_html_()
    qwk, majority = record["qwk"], record["baselines"]["majority"]
    assert f">{qwk['value']:.3f} ({qwk['ci95'][0]:.3f}" in html.replace("−", "-")
    assert f">{majority['accuracy']:.1%}<" in html
    assert f">{record['calibration']['ece']:.3f}" in html
    for cells in record["confusion"]:
        assert all(f">{n}</td>" in html for n in cells)
    for told in record["warnings"]:
        assert f"Warning: {told[:12]}" in html


def test_what_is_not_known_is_said_and_names_are_escaped(record):
    bare = record | {
        "run": "<b>mine</b>", "confusion": None, "warnings": ["<i>"], "failed": 3,
        "baselines": record["baselines"] | {"fellow_eye": None},
        "qwk": {"value": None, "ci95": None},
    }  # fmt: skip
    html = Evaluation(bare)._repr_html_()
    assert "&lt;b&gt;mine&lt;/b&gt;" in html
    assert "Warning: &lt;i&gt;" in html
    assert "3 could not be read" in html
    assert ">n/a<" in html
    assert "true \\ predicted" not in html
    assert html.count("not known") == 2


def test_ipython_prints_a_line(record):
    printer = Printer()
    record._repr_pretty_(printer, False)
    assert printer.told.startswith(f"one, test: {record['n']} images of {record['patients']} pat")
    assert f"QWK {record['qwk']['value']:.3f}" in printer.told
