"""What `dr export` writes answers as PyTorch does, without a line of ours around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dr_cli import runs
from dr_cli.errors import DrError, UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold
from dr_cli.network import export
from dr_cli.network.grader import Grader
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from tests.builders.photographs import picture

ROOT = Path(__file__).parents[2]
SIZE, THRESHOLD = 64, 0.92
CUTS = (0.9, 1.6, 2.2, 3.1)
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")


def save(folder, seed, temperature, cuts=CUTS, size=SIZE):
    torch.manual_seed(seed)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight)  # some evidence for every grade
    point = OperatingPoint(Threshold(THRESHOLD, "youden"))
    calibration = Calibration(cuts, temperature, point)
    way = Preprocessing(size, illumination="evened")
    record = runs.ModelRecord("resnet18", way.to_dict(), calibration)
    folder.mkdir(parents=True, exist_ok=True)
    runs.Run(folder).save_model(network.state_dict(), record)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [save(folder / str(seed), seed, 1.0 + seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def crops():
    pictures = (picture(k % 5, seed=k, size=SIZE) for k in range(7))
    return np.stack([np.asarray(p.convert("RGB")).transpose(2, 0, 1) for p in pictures])


@pytest.fixture(scope="module")
def written(pair, crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    files = {"onnx": folder / "model.onnx", "torch": folder / "model.pt2"}
    found = {form: export.export(pair, file, form, crops) for form, file in files.items()}
    return files, found


@pytest.mark.parametrize("form", ["onnx", "torch"])
@pytest.mark.parametrize("n", [1, 7])
def test_a_file_answers_as_the_grader_does(pair, crops, written, form, n):
    found = dict(zip(export.OUTPUTS, export.run(written[0][form], crops[:n]), strict=True))
    grader = Grader.load(pair, device="cpu", precision="fp32")
    expected = grader.probabilities([(torch.from_numpy(crops[:n]), None, None)])
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert found["predicted"].tolist() == grader.calibration.decide(expected).tolist()
    assert found["referable"].tolist() == (expected[:, 2:].sum(1) >= THRESHOLD).tolist()
    assert found["referable_probability"] == pytest.approx(expected[:, 2:].sum(1), abs=1e-5)
    assert found["expected_grade"] == pytest.approx(expected @ np.arange(5), abs=1e-4)
    assert written[1][form].photographs == 7
    assert written[1][form].other == 0


def test_the_decisions_tested_are_not_all_one(pair, crops):
    grader = Grader.load(pair, device="cpu", precision="fp32")
    found = grader.probabilities([(torch.from_numpy(crops), None, None)])
    assert len(set(grader.calibration.decide(found).tolist())) > 1
    assert 0 < (found[:, 2:].sum(1) >= THRESHOLD).sum() < len(crops)


def test_a_file_that_answers_otherwise_is_not_kept(pair, crops, tmp_path, monkeypatch):
    honest = export.run

    def wrong(file, pixels):
        return [honest(file, pixels)[0] + 0.01, *honest(file, pixels)[1:]]

    monkeypatch.setattr(export, "run", wrong)
    with pytest.raises(DrError, match="nothing was written"):
        export.export(pair[:1], tmp_path / "model.pt2", "torch", crops)
    assert list(tmp_path.iterdir()) == []


def test_networks_of_different_crops_are_refused(pair, crops, tmp_path):
    other = save(tmp_path / "other", 3, 1.0, size=96)
    with pytest.raises(UsageError, match="size 64 and 96"):
        export.export([pair[0], other], tmp_path / "model.pt2", "torch", crops)


def test_without_the_extra_it_says_what_to_install(pair, crops, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(DrError, match=r"pip install 'dr-cli\[onnx\]'"):
        export.export(pair[:1], tmp_path / "model.onnx", "onnx", crops)
    assert list(tmp_path.iterdir()) == []


def test_the_example_grades_without_torch(pair, written, tmp_path):
    names = []
    for grade in (0, 4):
        names.append(str(tmp_path / f"{grade}.png"))
        picture(grade, size=96).save(names[-1])
    names.append(str(tmp_path / "none.png"))
    script = (
        "import runpy, sys; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "examples/onnx_grade.py", str(written[0]["onnx"]), *names],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    said = [json.loads(line) for line in done.stdout.splitlines()]
    records = list(Grader.load(pair, device="cpu", precision="fp32").predict(names))
    for ours, theirs in zip(records, said, strict=True):
        assert theirs["path"] == ours["path"]
        if ours["error"]:
            assert theirs["error"] == ours["error"]
            continue
        assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=2e-6)
        for name in ("predicted", "name", "referable", "gradable", "referable_threshold"):
            assert theirs[name] == ours[name], name
