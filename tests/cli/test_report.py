"""`dr report` as a person types it."""

import re

import pytest

from tests.builders.program import dr
from tests.builders.runs import write_run


def test_report_names_the_run(world, tmp_path):
    done = dr("report", world / "runs", "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search(r"<h2[^>]*>\s*first\s*</h2>", page)
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("form", "names_it"),
    [("json", '"name": "first"'), ("csv", "\nfirst,"), ("markdown", "\n| first |")],
)
def test_report_has_its_data_in_other_forms(world, form, names_it):
    done = dr("report", world / "runs", "--format", form, "--no-pictures")
    assert done.exit_code == 0, done.output
    assert names_it in done.stdout
    assert ".jpeg" not in done.stdout, "a file name in what is fit to share"


def test_report_draws_for_a_paper(world, tmp_path):
    done = dr("report", world / "runs", "--out", tmp_path / "r.html", "--figures", tmp_path / "f")
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in (tmp_path / "f").iterdir()} == {".png", ".svg"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--format", "csv", "--open"), "--open are of the page"),
        (("--format", "json", "--out", "p.html"), "--out and"),
        ((".",), "name the page with --out"),
    ],
)
def test_report_refuses_before_it_reads(flags, says):
    done = dr("report", "nowhere", *flags)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_run_that_cannot_be_read_fails_alone(tmp_path):
    runs = tmp_path / "runs"
    write_run(runs / "whole")
    (write_run(runs / "broken") / "summary.json").write_text("{half", encoding="utf-8")
    done = dr("report", runs)
    assert done.exit_code == 1
    assert done.stdout.strip() == str(runs / "report.html")
    assert "warning: broken is left out: " in done.stderr
    (runs / "broken" / "summary.json").unlink()
    done = dr("report", runs)
    assert done.exit_code == 0, "an unfinished run is no failed one"
    assert "warning: broken is left out: not finished, 4 of 4 epochs done" in done.stderr
