"""Anybody's predictions: other columns, separators and forms; joined with their labels."""

import io
import json
import sys

import pandas as pd
import pytest
import sklearn.metrics as reference

from dr_cli.errors import UsageError
from dr_cli.labels import reading as labels
from dr_cli.scoring.of_table import evaluate_table
from dr_cli.scoring.reading import read_predictions
from dr_cli.scoring.record import Scoring, build_record
from tests.builders.predictions import P, binary, table

NONE = Scoring(0)


def plain(record):
    """As JSON has it: fails on NaN, on numpy numbers, on anything else that is not plain."""
    return json.loads(json.dumps(record, allow_nan=False))


def test_a_written_table_reads_back_to_the_same_record(tmp_path):
    rows = table(40)
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows.drop(columns="predicted").to_csv(tmp_path / "b.tsv", index=False, sep="\t")
    expected = plain(build_record(rows, scoring=Scoring(50)))
    for name in ("a.csv", "b.tsv"):
        got = plain(build_record(read_predictions(tmp_path / name).table, scoring=Scoring(50)))
        assert got["qwk"] == expected["qwk"]
        assert got["confusion"] == expected["confusion"]
        assert got["referable"]["auc"]["value"] == pytest.approx(
            expected["referable"]["auc"]["value"]
        )


def test_a_binary_table_tells_what_it_can_and_no_more(tmp_path):
    rows = table(60)
    binary(rows).to_csv(tmp_path / "theirs.csv", index=False)
    record = plain(
        build_record(read_predictions(tmp_path / "theirs.csv").table, scoring=Scoring(50))
    )
    ours = plain(build_record(rows, scoring=Scoring(50)))
    assert record["referable"] == ours["referable"]
    assert record["calibration"]["brier"] == pytest.approx(
        reference.brier_score_loss(rows["grade"] >= 2, rows[P[2:]].sum(axis=1))
    )
    assert record["qwk"] == record["sight_threatening"]["auc"] == {"value": None, "ci95": None}
    assert record["confusion"] is None is record["grade_counts"]
    assert record["per_grade"] == []


def test_rows_of_a_split_are_taken_where_the_file_names_splits(tmp_path):
    rows = table(20).assign(split=["val", "test"] * 20)
    rows.to_csv(tmp_path / "a.csv", index=False)
    read = read_predictions(tmp_path / "a.csv")
    assert len(read.take("test")) == 20
    assert len(read.take(None)) == 40
    with pytest.raises(UsageError, match="no row of split 'train': it has test, val"):
        read.take("train")
    rows.drop(columns="split").to_csv(tmp_path / "b.csv", index=False)
    assert len(read_predictions(tmp_path / "b.csv").take("all")) == 40
    with pytest.raises(UsageError, match=r"b\.csv has no column split"):
        read_predictions(tmp_path / "b.csv").take("val")


ROW = "path,grade,p0,p1,p2,p3,p4\na.jpg,0,1,0,0,0,0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no table"),
        ("path,grade,p0,p1,p2,p3,p4\n", "has no row"),
        ("path,p0,p1,p2,p3,p4\na.jpg,1,0,0,0,0\n", "has no column grade"),
        ("path,grade,p0,p1\na.jpg,0,1,0\n", "has no column p2, p3, p4"),
        ("path,referable_probability\na.jpg,1\n", "has no column referable:"),
        (ROW + "b.jpg,5,1,0,0,0,0\n", "line 3, column grade: '5' is not a grade of 0-4"),
        (ROW + "b.jpg,,1,0,0,0,0\n", "line 3, column grade: nothing is not a grade"),
        (ROW + "b.jpg,mild,1,0,0,0,0\n", "line 3, column grade: 'mild' is not a grade"),
        (ROW + "b.jpg,1,nan,0,0,0,1\n", "line 3, column p0: nothing is not a probability"),
        (ROW + "b.jpg,1,0,0,0,inf,1\n", "line 3, column p3: 'inf' is not a probability"),
        (ROW + "b.jpg,1,0,-0.5,0,0.5,1\n", "line 3, column p1: '-0.5' is not a probability"),
        (ROW + "b.jpg,1,0.2,0.2,0.2,0.2,0.1\n", "line 3: p0 to p4 sum to 0.9, not 1"),
        ("\n" + ROW + "\n  \nb.jpg,5,1,0,0,0,0\n", "line 6, column grade: '5' is not a grade"),
        (ROW + '"b\n.jpg",0,1,0,0,0,0\nc,5,1,0,0,0,0\n', "line 5, column grade: '5' is not"),
        (ROW + "a.jpg,1,1,0,0,0,0\n", "line 3: a.jpg stands there twice"),
        (ROW + "b.jpg,1,1,0,0,0,0,7,8\n", "is no table"),
        (ROW + f"{'b' * 200_000},1,1,0,0,0,0\n", "is no table: field larger than field limit"),
        ("path,referable,referable_probability\na.jpg,2,.5\n", "column referable: '2' is not 0 or"),
        ("path,referable,referable_probability\na.jpg,1,1.5\n", "probability: '1.5' is not a prob"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_scored_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "theirs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_predictions(path)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UsageError, match="is no table"):
        read_predictions(tmp_path / "x.csv")


def test_probabilities_with_two_decimals_and_a_byte_order_mark_are_taken(tmp_path):
    (tmp_path / "a.csv").write_text(
        "path,grade,p0,p1,p2,p3,p4\na.jpg,0,.33,.33,.33,0,0\n", encoding="utf-8-sig"
    )
    assert read_predictions(tmp_path / "a.csv").table["grade"].tolist() == [0]


# --- separators, forms, names of columns


@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", ".")]
)
def test_the_separator_is_found_whatever_the_file_is_called(tmp_path, separator, decimal):
    rows = table(20)
    rows.to_csv(tmp_path / "a.csv", index=False, sep=separator, decimal=decimal)
    found = read_predictions(tmp_path / "a.csv").table
    pd.testing.assert_frame_equal(found, rows, check_dtype=False)


def test_a_table_comes_on_stdin(tmp_path, monkeypatch):
    text = table(20).to_csv(index=False).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    record = evaluate_table("-", scoring=NONE)
    assert (record["data"], record["n"]) == ("stdin", 40)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UsageError, match=r"is a folder: name a table of predictions"):
        read_predictions(tmp_path)


def test_columns_have_the_names_that_a_person_gives_or_that_others_use(tmp_path):
    rows = table(20)
    other = rows.rename(columns={"path": "Photo", "grade": "truth", "patient": "Person"})
    other["path"] = "elsewhere"  # not the column that was named
    other.to_csv(tmp_path / "a.csv", index=False)
    given = {"image": "photo", "grade": "truth", "patient": "Person"}
    found = read_predictions(tmp_path / "a.csv", columns=given).table
    pd.testing.assert_frame_equal(found[rows.columns], rows, rtol=1e-15)  # pandas 2 rounds so
    usual = rows.rename(columns={"path": "id_code", "grade": "diagnosis", "patient": "patient_id"})
    usual["id_code"] = [f"{i:04d}" for i in range(40)]  # text, whatever it looks like
    usual.to_csv(tmp_path / "b.csv", index=False)
    found = read_predictions(tmp_path / "b.csv").table
    assert found["path"].tolist() == usual["id_code"].tolist()
    assert found["grade"].equals(rows["grade"])
    with pytest.raises(
        UsageError, match=r"no column 'foto' \(--image-column\); it has Photo, truth"
    ):
        read_predictions(tmp_path / "a.csv", columns={"image": "foto"})


def test_grades_without_probabilities_are_scored_for_what_they_are(tmp_path):
    rows = table(40)
    rows[["path", "grade", "patient", "predicted"]].to_csv(tmp_path / "a.csv", index=False)
    record = plain(evaluate_table(tmp_path / "a.csv", scoring=Scoring(50)))
    whole = plain(build_record(rows, scoring=Scoring(50)))
    for name in ("accuracy", "qwk", "confusion", "macro_f1"):
        assert record[name] == whole[name]
    truth, called = rows["grade"] >= 2, rows["predicted"] >= 2
    found = record["referable"]
    assert found["sensitivity"]["value"] == reference.recall_score(truth, called)
    assert found["ppv"]["value"] == pytest.approx(reference.precision_score(truth, called))
    assert found["threshold"] is None is found["auc"]["value"]
    assert "predicted grade" in found["threshold_from"]
    assert found["calibration"] is None is found["decision_curve"]
    assert record["calibration"]["ece"] is None
    assert [row["auc"] for row in record["per_grade"]] == [None] * 5
    assert record["per_patient"]["referable"]["sensitivity"]["value"] is not None
    assert any("no probability is known" in w for w in record["warnings"])
    with pytest.raises(UsageError, match="no probability"):
        evaluate_table(tmp_path / "a.csv", threshold=tmp_path / "a.csv")


# --- joined with labels


@pytest.fixture
def graded(tmp_path):
    """A table of labels whose images are not here, as a data set's is; and the rows."""
    rows = table(20)
    rows["path"] = [f"{i // 2}_{'right' if i % 2 else 'left'}.jpeg" for i in range(40)]
    rows["camera"] = ["A", "B"] * 20
    folder = tmp_path / "labels"
    folder.mkdir()
    named = rows.assign(image=rows["path"].str.removesuffix(".jpeg")).rename(
        columns={"grade": "level"}
    )
    named[["image", "level", "camera"]].to_csv(folder / "trainLabels.csv", index=False)
    return rows, folder / "trainLabels.csv"


def test_a_submission_is_joined_with_its_labels(graded, tmp_path):
    rows, truth = graded
    submission = rows.sample(frac=1, random_state=0)
    submission["id_code"] = submission["path"].str.removesuffix(".jpeg")
    submission = submission.rename(columns={"predicted": "diagnosis"})[["id_code", "diagnosis"]]
    submission.to_csv(tmp_path / "submission.csv", index=False)
    record = evaluate_table(
        tmp_path / "submission.csv", labels=truth, scoring=Scoring(0, by="camera")
    )
    assert record["confusion"] == build_record(rows, scoring=NONE)["confusion"]
    assert record["patients"] == 20  # by the names of the images
    assert [group["value"] for group in record["subgroups"]["groups"]] == ["A", "B"]
    with pytest.raises(UsageError, match="True grades of another table are joined by --labels"):
        evaluate_table(tmp_path / "submission.csv")


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_what_predict_prints_is_joined_with_labels(graded, tmp_path, form, pair):
    rows, truth = graded
    said = [
        {
            "path": f"/photos/clinic/{row.path}", "predicted": row.predicted, "name": "x",
            "probabilities": [getattr(row, p) for p in P], "expected_grade": 1.0,
            "referable": row.predicted < 2, "referable_probability": 0.1, "gradable": True,
            "quality": 0.9, "verdict": "good", "reason": None, "error": None,
        }
        for row in rows.itertuples()
    ]  # fmt: skip
    said.insert(3, dict.fromkeys(said[0]) | {"path": "/photos/x.jpg", "error": "no such file"})
    if pair:  # --pair: each photograph's patient, and at last a row of the patient's own
        said = [s | {"patient": f"clinic/{str(s['path'])[15:].split('_')[0]}"} for s in said]
        worst = {"predicted": 4, "name": "x", "referable": True, "gradable": True}
        said.append(dict.fromkeys(said[0]) | worst | {"patient": said[0]["patient"]})
    path = tmp_path / "grades"
    if form == "csv":
        flat = [s | dict(zip(P, s["probabilities"] or [None] * 5, strict=True)) for s in said]
        pd.DataFrame(flat).drop(columns="probabilities").to_csv(path, index=False)
    else:
        lines = [json.dumps(s, default=int) for s in said]
        path.write_text("[" + ",".join(lines) + "]" if form == "json" else "\n".join(lines))
    record = plain(evaluate_table(path, labels=truth, scoring=NONE))
    ours = build_record(rows, scoring=NONE)
    assert (record["n"], record["failed"]) == (40, 1)
    assert record["confusion"] == ours["confusion"]
    assert record["referable"]["auc"]["value"] == pytest.approx(ours["referable"]["auc"]["value"])
    assert record["ungradable"]["n"] == 0
    assert not any("prediction" in w for w in record["warnings"])  # none is left over


def test_what_stands_in_one_of_the_two_tables_alone_is_told(graded, tmp_path):
    rows, truth = graded
    some = rows.drop(columns=["grade", "patient", "eye"]).iloc[5:]
    some = pd.concat([some, some.head(2).assign(path=["a.jpg", "b.jpg"])])
    some.to_csv(tmp_path / "some.csv", index=False)
    record = evaluate_table(tmp_path / "some.csv", labels=truth, scoring=NONE)
    assert record["n"] == 35
    assert "2 of 37 predictions have no grade in trainLabels.csv" in record["warnings"][0]
    assert record["warnings"][0].endswith("such as a.jpg")
    assert (
        "5 of the 40 graded images of trainLabels.csv have no prediction" in record["warnings"][1]
    )
    some.assign(path=lambda t: "x" + t["path"]).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(
        UsageError, match=r"no image of .*none.csv \(such as x2_right.jpeg\) is graded"
    ):
        evaluate_table(tmp_path / "none.csv", labels=truth)


def test_images_of_one_name_in_two_folders_are_told_apart(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    text = "image,grade,split\ntrain/1.jpg,0,train\ntest/1.jpg,4,test\ntest/2.jpg,2,test\n"
    (folder / "labels.csv").write_text(text)
    said = "path,predicted\n/data/test/1.jpg,4\n/data/train/1.jpg,0\nelsewhere/2.png,2\n"
    (tmp_path / "said.csv").write_text(said)
    found = read_predictions(tmp_path / "said.csv", labels.read(folder / "labels.csv"))
    assert found.table["grade"].tolist() == [4, 0, 2]
    assert found.take("test")["path"].tolist() == ["/data/test/1.jpg", "elsewhere/2.png"]


# --- thresholds


def test_a_threshold_is_given_or_chosen_elsewhere_and_it_is_said_where(tmp_path):
    rows = table(60).assign(split=["val"] * 60 + ["test"] * 60)
    rows.to_csv(tmp_path / "both.csv", index=False)
    rows[rows["split"] == "val"].to_csv(tmp_path / "val.csv", index=False)
    score = rows[P[2:]].sum(axis=1)[rows["split"] == "test"]
    truth = rows["grade"][rows["split"] == "test"] >= 2

    def found(**how):
        return evaluate_table(tmp_path / "both.csv", "test", scoring=NONE, **how)

    given = found(threshold=0.3)["referable"]
    assert (given["threshold"], given["threshold_from"]) == (0.3, "given by --threshold")
    assert given["sensitivity"]["value"] == reference.recall_score(truth, score >= 0.3)
    own = found()
    assert own["referable"]["threshold_from"] == f"val of {tmp_path / 'both.csv'}"
    assert own["referable"]["rule"] == "youden"
    second = found(threshold=tmp_path / "val.csv", rule="sensitivity=0.9")
    assert second["referable"]["threshold_from"] == str(tmp_path / "val.csv")
    assert second["referable"]["rule"] == "sensitivity=0.9"
    assert (
        found(threshold=tmp_path / "val.csv")["referable"]["threshold"]
        == own["referable"]["threshold"]
    )
    assert not any("optimistic" in w for w in second["warnings"])
    twice = found(threshold=tmp_path / "both.csv")
    assert any("60 of these 60 images stand in" in w for w in twice["warnings"])
    whole = evaluate_table(tmp_path / "both.csv", scoring=NONE)
    assert whole["referable"]["threshold"] == 0.5  # its own val rows are among those scored
    for how, said in (
        ({"rule": "youden"}, "--operating-point is chosen on"),
        ({"threshold": 1.5}, "no prob"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate_table(tmp_path / "both.csv", **how)


def test_a_threshold_is_refused_where_no_probability_is_cut(tmp_path):
    rows = table(20)
    rows.drop(columns=P).assign(predicted=rows["grade"]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UsageError, match="--threshold does nothing here"):
        evaluate_table(tmp_path / "a.csv", scoring=NONE, threshold=0.3)


def test_a_threshold_is_chosen_on_a_binary_table_too(tmp_path):
    rows = binary(table(60)).assign(split=["val"] * 60 + ["test"] * 60)
    rows.to_csv(tmp_path / "a.csv", index=False)
    record = evaluate_table(tmp_path / "a.csv", "test", scoring=NONE)
    assert record["referable"]["rule"] == "youden"
    assert record["sight_threatening"]["threshold_from"].startswith("0.5")
