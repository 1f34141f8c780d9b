"""What a data set really holds: doubles, leaks, what cannot be used, who stands where."""

from pathlib import Path

import pytest

from dr_cli.cli.tables import audit_tables
from dr_cli.errors import UsageError
from dr_cli.labels import reading
from dr_cli.training import audit
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import assign_splits
from tests.builders.doubles import eye, lay_out


def test_audit_of_a_small_set(tmp_path: Path) -> None:
    data = reading.read(lay_out(tmp_path))
    seen = audit.inspect(data)
    table = assign_splits(TrainConfig(val="0.5"), data, seen)
    record = audit.describe(data, table, seen)
    assert record["images_found"] == 6
    assert record["images_missing"] == 1
    assert record["left_out"] == {"unreadable": 1, "image missing": 1}
    assert [bad["path"] for bad in record["unreadable"]] == ["broken.jpg"]
    assert record["unreadable"][0]["reason"] == "the file is cut short (truncated)"
    assert record["leaks"]["duplicates_across_splits"] == 2
    doubles = record["duplicates"]
    assert doubles["exact_groups"] == 1
    assert doubles["near_groups"] == 1
    assert doubles["conflicting_groups"] == 1
    assert doubles["conflicts"] == [{"paths": ["a.png", "a_again.bmp"], "grades": [0, 3]}]
    assert record["splits"]["test"]["n"] == 2
    said = list(audit.problems(record))
    for words in ("1 of 7 images are missing", "cannot be read", "duplicate", "conflicting"):
        assert any(words in sentence for sentence in said), words


def test_doubles_stand_in_one_split_of_a_clean_one(tmp_path: Path) -> None:
    """p3's other eye and its double go where p3 goes."""
    data = reading.read(lay_out(tmp_path))
    seen = audit.inspect(data)
    with pytest.raises(UsageError, match="at least 2 patients"):  # two groups for three splits
        assign_splits(TrainConfig(split_by="patient"), data, seen)
    eye(5).save(tmp_path / "missing.png")
    data = reading.read(tmp_path)
    seen = audit.inspect(data)
    table = assign_splits(TrainConfig(split_by="patient"), data, seen).set_index("path")["split"]
    assert table["a.png"] == table["a_again.bmp"]
    assert table["b.png"] == table["b_small.png"] == table["c.png"]
    assert set(table.dropna()) == {"train", "val", "test"}


def test_labels_alone_hold_no_count_of_doubles(tmp_path: Path) -> None:
    """Nobody looked: null and a word, not 0."""
    rows = "".join(f"{k}.jpg,{k % 5},{'test' if k > 9 else 'train'}\n" for k in range(14))
    (tmp_path / "labels.csv").write_text(f"image,grade,split\n{rows}", encoding="utf-8")
    data = reading.read(tmp_path)
    seen = audit.inspect(data)
    record = audit.describe(data, assign_splits(TrainConfig(), data, seen), seen)
    assert record["leaks"]["duplicates_across_splits"] is None
    assert {record["duplicates"][f"{kind}_groups"] for kind in ("exact", "near")} == {None}
    lines = audit_tables(record | {"plan": None})
    assert "duplicates: not looked for, as no image is here" in lines


def test_validation_that_leaks_is_told_beside_a_test_split(tmp_path: Path) -> None:
    """The data set brings its own validation: the other eyes of two patients of train, a double
    of a third's."""
    sides = {"left": "train", "right": "val"}
    rows = [(f"{p}_{side}", split) for p in (1, 2) for side, split in sides.items()]
    rows += [("7_left", "train"), ("8_left", "val"), ("9_left", "test")]
    for k, (name, _) in enumerate(rows):
        eye(7 if name[0] in "78" else k).save(tmp_path / f"{name}.png")
    lines = "".join(f"{name},{k % 5},{split}\n" for k, (name, split) in enumerate(rows))
    (tmp_path / "labels.csv").write_text(f"image,grade,split\n{lines}", encoding="utf-8")
    data = reading.read(tmp_path)
    seen = audit.inspect(data)
    record = audit.describe(data, assign_splits(TrainConfig(), data, seen), seen)
    assert record["judged_on"] == "test"
    assert set(record["leaks"].values()) == {0}
    assert record["validation_leaks"] == {
        "fellow_eye_in_train": 2, "patient_in_train": 2, "duplicates_across_splits": 1,
    }  # fmt: skip
    said = list(audit.problems(record))
    assert any("2 of 3 val images have their fellow eye in train" in line for line in said)
    assert any("1 of 3 val images have a duplicate in train" in line for line in said)


def test_audit_of_labels_alone(shared: Path) -> None:
    data = reading.read(shared / "data" / "dlp")
    seen = audit.inspect(data)
    record = audit.describe(data, assign_splits(TrainConfig(), data, seen), seen)
    assert record["images_missing"] == record["rows"] == 35126
    assert record["leaks"]["fellow_eye_in_train"] == 5618
    assert record["splits"]["test"]["n"] == 7026
    assert record["baselines"]["fellow_eye"]["qwk"] == pytest.approx(0.723, abs=5e-4)
    assert record["sizes"] is None
    assert record["duplicates"]["exact_groups"] is None
    assert len(list(audit.problems(record))) == 2


def test_doubles_of_idrid(shared: Path, tmp_path: Path) -> None:
    """Six byte-identical pairs, three with conflicting grades, one across the splits; and
    IDRiD_013 and 397, one eye photographed twice and graded 3 and 2."""
    data = reading.read(shared / "data" / "idrid")
    seen = audit.inspect(data)
    record = audit.describe(data, assign_splits(TrainConfig(), data, seen), seen)
    assert record["leaks"]["duplicates_across_splits"] == 1
    doubles = record["duplicates"]
    assert (doubles["exact_groups"], doubles["near_groups"]) == (6, 1)
    assert doubles["conflicting_groups"] == 4
    names = [{Path(path).stem for path in group["paths"]} for group in doubles["conflicts"]]
    assert {"IDRiD_118", "IDRiD_064"} in names
    assert {"IDRiD_013", "IDRiD_397"} in names
