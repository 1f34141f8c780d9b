"""What a data set really holds: doubles, leaks, what cannot be used, who stands where."""

from pathlib import Path

import pytest

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


def test_audit_of_labels_alone(shared: Path) -> None:
    data = reading.read(shared / "data" / "dlp")
    seen = audit.inspect(data)
    record = audit.describe(data, assign_splits(TrainConfig(), data, seen), seen)
    assert record["images_missing"] == record["rows"] == 35126
    assert record["leaks"]["fellow_eye_in_train"] == 5618
    assert record["splits"]["test"]["n"] == 7026
    assert record["baselines"]["fellow_eye"]["qwk"] == pytest.approx(0.723, abs=5e-4)
    assert record["sizes"] is None
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
