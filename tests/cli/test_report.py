"""`dr report` as a person types it."""

import pytest

from tests.builders.program import dr


def test_report_names_the_run(world, tmp_path):
    done = dr("report", world / "runs", "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "first" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


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
