"""What a run has seen is known again: by path, by pixels, under other names, in other folders."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration
from dr_cli.labels import reading
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs import duplicates
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import FURTHER, SPLITS, DataRecord, ModelRecord, Run, RunConfig
from dr_cli.scoring.of_run import evaluate
from dr_cli.scoring.overlap import find_seen
from tests.builders.doubles import eye
from tests.builders.photographs import picture

STOOD = ["train"] * 6 + ["val"] * 3 + ["test"] * 3


def lay_out(root: Path, split: bool = False) -> Path:
    """Twelve eyes of twelve patients in one table."""
    (root / "img").mkdir(parents=True)
    for k in range(12):
        eye(k, 96).save(root / "img" / f"{k:02}.png")
    return write_labels(root, [f"img/{k:02}.png" for k in range(12)], split)


def write_labels(root: Path, paths: list[str], split: bool = False, shift: int = 0) -> Path:
    rows = [
        f"{path},{(k + shift) % 5},{f'p{path[-6:-4]}'}{f',{STOOD[k]}' if split else ''}"
        for k, path in enumerate(paths)
    ]
    head = "image,grade,patient" + (",split" if split else "")
    (root / "labels.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return root


def make_run(folder: Path, data: Path, **options: str) -> Run:
    """A run whose splits are its own: the data set names none."""
    folder.mkdir()
    run, labels = Run(folder), reading.read(data)
    torch.manual_seed(0)
    model = ModelRecord("resnet18", Preprocessing(size=32).to_dict(), Calibration(), 1)
    run.save_model(build_resnet("resnet18").state_dict(), model)
    root = str(data.resolve())
    record = DataRecord(root, root, "table", {}, labels.fingerprint, {})
    options = {"val": "0.15", **options}
    run.write_config(RunConfig(options, None, model.preprocessing, 1, 1, record, {}, "", "", 1))
    table = labels.table.assign(split=STOOD, left_out_of=None, duplicates=None)
    run.write_table("splits.csv", (*SPLITS, *FURTHER), table)
    run.write_hashes(duplicates.look(data, table["path"].tolist()), duplicates.VERSION)
    run["summary.json"].write_text('{"test": {"n": 3}}')
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("set") / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", data)


def score(run: Run, data: Path, split: str | None = None) -> dict:
    return evaluate(run, data, split, bootstrap=0, device="cpu", precision="fp32")


def test_a_corrected_label_keeps_the_splits_and_is_told(run: Run, data: Path, tmp_path: Path):
    """It changed the fingerprint, and twelve photographs were scored, nine of them seen."""
    changed = shutil.copytree(data, tmp_path / "changed")
    lines = (changed / "labels.csv").read_text().replace("img/10.png,0", "img/10.png,4")
    (changed / "labels.csv").write_text(lines)
    for folder in (data, changed):
        record = score(run, folder)
        assert (record["split"], record["n"], record["seen"]) == ("test", 3, None)
        assert record["leaks"]["fellow_eye_in_train"] == 0
        told = [w for w in record["warnings"] if "was made with: 1;" in w]
        assert told == [] if folder is data else told[0].endswith("by the grades of now")
    assert record["grade_counts"] == [0, 1, 0, 0, 2]  # by the grades of now


def test_what_stood_in_train_or_validation_is_left_out_of_any_data(run, tmp_path):
    """Another folder, other names, one of them smaller; three of test and two new ones stay."""
    other = tmp_path / "other"
    other.mkdir()
    for k in range(12):
        eye(k, 96).save(other / f"x{k:02}.png")
    eye(2, 96).resize((102, 72)).save(other / "x12.png")
    for k in (13, 14):
        eye(k, 96).save(other / f"x{k}.png")
    write_labels(other, [f"x{k:02}.png" for k in range(15)])
    record = score(run, other)
    assert (record["split"], record["n"]) == ("all", 5)
    assert record["seen"] == {"train": 7, "val": 3, "left_out": True, "by": "path and pixels"}
    assert any(
        "7 of these 15 photographs stood in train and 3 in val" in w for w in record["warnings"]
    )
    flow = record["flow"][0]
    assert [(why["reason"], why["images"]) for why in flow["left_out"]] == [
        ("stood in train of the run", 7), ("stood in val of the run", 3),
    ]  # fmt: skip
    assert flow["used"]["images"] == 5
    everything = score(run, other, "all")
    assert everything["n"] == 15
    assert (everything["seen"]["train"], everything["seen"]["left_out"]) == (7, False)
    assert any("optimistic" in w for w in everything["warnings"])


def test_other_datas_own_test_split_is_cleaned(run, data, tmp_path):
    """Of its three test photographs one was trained on; and where all were, it is refused."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(data / "img" / "00.png", other / "a.png")
    for k in (20, 21):
        eye(k, 96).save(other / f"{k}.png")
    lines = "image,grade,split\na.png,0,test\n20.png,2,test\n21.png,3,test\n"
    (other / "labels.csv").write_text(lines)
    record = score(run, other)
    assert (record["split"], record["n"], record["seen"]["train"]) == ("test", 2, 1)
    (other / "labels.csv").write_text("image,grade,split\na.png,0,test\n20.png,2,train\n")
    with pytest.raises(
        UsageError, match=r"1 of these 1 photographs stood in train.*nothing is left"
    ):
        score(run, other)


def test_an_added_photograph_is_scored_with_the_runs_test(run, data, tmp_path):
    more = shutil.copytree(data, tmp_path / "more")
    eye(30, 96).save(more / "img" / "30.png")
    write_labels(more, [f"img/{k:02}.png" for k in (*range(12), 30)])
    record = score(run, more)
    assert (record["n"], record["seen"]["train"], record["seen"]["val"]) == (4, 6, 3)
    assert record["leaks"] is None  # in another folder a patient's name may be another's
    run.write_config(
        replace(run.config(), data=replace(run.config().data, root=str(more.resolve())))
    )
    assert score(run, more)["leaks"] == {
        "fellow_eye_in_train": 0, "patient_in_train": 0, "duplicates_across_splits": 0,
    }  # fmt: skip


def test_runs_of_before_match_by_path_alone_and_say_so(run, data, tmp_path):
    run["hashes.npz"].unlink()
    part = tmp_path / "part.csv"
    part.write_text(
        "image,grade\n" + "".join(f"{data}/img/{k:02}.png,{k % 5}\n" for k in (0, 9, 10))
    )
    record = score(run, part)
    assert (record["n"], record["seen"]["train"], record["seen"]["by"]) == (2, 1, "path")
    assert any("known again by path alone" in w for w in record["warnings"])


def test_all_and_train_say_how_many_were_trained_on(run, data):
    for split, n, seen in (("all", 12, (6, 3)), ("train", 6, (6, 0))):
        record = score(run, data, split)
        assert record["n"] == n
        assert (record["seen"]["train"], record["seen"]["val"]) == seen
        assert any(
            f"{seen[0]} of these {n} photographs stood in train" in w for w in record["warnings"]
        )


def test_what_a_start_has_seen_the_run_has_seen(run, data, tmp_path):
    later = lay_out(tmp_path / "later" / "data")
    for k in range(12):
        eye(50 + k, 96).save(later / "img" / f"{k:02}.png")
    second = make_run(tmp_path / "second", later, weights=str(run.folder))
    paths = [f"img/{k:02}.png" for k in range(12)]
    seen = find_seen(second, data, paths, lambda: duplicates.look(data, paths))
    assert seen.stood.tolist() == [*STOOD[:9], None, None, None]


def test_hashes_of_another_version_are_none(run):
    assert len(run.hashes(duplicates.VERSION)) == 12
    assert run.hashes(duplicates.VERSION + 1) is None
    run["hashes.npz"].write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"hashes\.npz cannot be read"):
        run.hashes(duplicates.VERSION)


def test_a_match_is_exact_or_near_and_the_first(tmp_path):
    for k, shown in enumerate((eye(1), eye(2), eye(1), picture(2, 5, 40))):
        shown.save(tmp_path / f"{k}.png")
    eye(1).resize((180, 160)).save(tmp_path / "small.png")
    picture(2, 5, 40).save(tmp_path / "same.bmp")
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "black.png")
    theirs = duplicates.look(tmp_path, [f"{k}.png" for k in range(4)])
    ours = duplicates.look(tmp_path, ["small.png", "same.bmp", "black.png", "nothing.png"])
    assert duplicates.match(ours, theirs).tolist() == [0, 3, -1, -1]
    assert pd.unique(duplicates.match(theirs[:0], ours)).tolist() == []
