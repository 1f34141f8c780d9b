"""onnxruntime in torch's place: the same records, where it is had and where it pays."""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dr_cli import runs
from dr_cli.device import choose
from dr_cli.errors import DrError, UsageError
from dr_cli.events import Observer
from dr_cli.grades import Calibration
from dr_cli.network import engine
from dr_cli.network.grader import Grader
from dr_cli.network.resnet import ARCHITECTURES, Bottleneck, ResNet, build_resnet
from dr_cli.photographs.crop import Preprocessing
from tests.builders.program import dr

CPU = choose("cpu", "fp32")


def save(folder, arch, seed=0):
    torch.manual_seed(seed)
    network = build_resnet(arch).eval()
    torch.nn.init.normal_(network.fc.weight, std=0.01)  # some evidence for every grade
    way = Preprocessing(32, illumination="evened")
    folder.mkdir(parents=True, exist_ok=True)
    record = runs.ModelRecord(arch, way.to_dict(), Calibration())
    runs.Run(folder).save_model(network.state_dict(), record)
    return folder


class Notes(Observer):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", (Bottleneck, (1, 1, 1, 1)))  # exported in a third
        yield save(tmp_path_factory.mktemp("run"), "tiny")


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """A cache that holds what onnxruntime takes of the run, and what was said as it was made."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    cache, notes = tmp_path_factory.mktemp("cache"), Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_CACHE", str(cache))
        Grader.load(run, device="cpu", precision="fp32", awaited=math.inf, observer=notes)
    return cache, notes.said


@pytest.fixture
def cache(made, monkeypatch):
    monkeypatch.setenv("DR_CACHE", str(made[0]))
    return made[0]


@pytest.fixture
def both(run, cache):
    """Graders by torch and by onnxruntime."""
    asked = {"device": "cpu", "precision": "fp32"}
    return [Grader.load(run, **asked, engine=one) for one in ("torch", "onnx")]


@pytest.fixture
def no_export(monkeypatch):
    def fail(*given, **more):
        raise AssertionError("it was made a second time")

    monkeypatch.setattr(torch.export, "export", fail)


def test_it_is_made_once_and_said(run, made, cache, no_export):
    assert [said for said in made[1] if "onnxruntime" in said] == made[1]
    assert len(made[1]) == 1
    (file,) = (cache / "onnx").iterdir()
    before, notes = file.stat(), Notes()
    asked = {"device": "cpu", "precision": "fp32", "observer": notes}
    assert Grader.load(run, **asked).engine == "onnx"
    assert notes.said == []
    assert list((cache / "onnx").iterdir()) == [file]
    assert file.stat().st_ino == before.st_ino
    assert file.stat().st_mtime_ns > before.st_mtime_ns  # it is in use: others go first


@pytest.mark.parametrize("tta", [False, True])
def test_both_engines_give_the_same_records(both, photographs, tta):
    names = [*photographs, "absent.png"]
    exact, found = (list(grader.predict(names, batch_size=2, tta=tta)) for grader in both)
    assert [grader.engine for grader in both] == ["torch", "onnx"]
    assert len({record["probabilities"][0] for record in exact[:5]}) == 5
    for one, other in zip(exact, found, strict=True):
        assert tuple(one) == tuple(other)
        for name, value in one.items():
            assert other[name] == (value if value is None else pytest.approx(value, abs=2e-6)), name


def test_onnxruntime_runs_the_network_alone(both, photographs, monkeypatch):
    monkeypatch.setattr(ResNet, "before_last", None)
    assert len(list(both[1].predict(photographs))) == 5


def test_pooled_features_are_those_that_novelty_is_measured_in(both):
    crops = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    plain, other = (grader.members[0].look(crops) for grader in both)
    for one, two in zip(plain, other, strict=True):
        assert one.dtype == two.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_heatmaps_are_torchs_under_either_engine(both, photographs, tmp_path):
    drawn = []
    for grader in both:
        records = grader.predict(photographs[:2], explain=tmp_path / grader.engine)
        drawn.append([Path(record["heatmap"]).read_bytes() for record in records])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-99], lambda whole: whole[:-9] + bytes(9)])
def test_a_damaged_file_is_made_anew(run, cache, tmp_path, monkeypatch, spoil):
    (file,) = (cache / "onnx").iterdir()
    whole, bad = file.read_bytes(), tmp_path / "onnx" / file.name
    bad.parent.mkdir()
    bad.write_bytes(spoil(whole))
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setattr(engine.Model, "_export", lambda model: whole)
    grader = Grader.load(run, device="cpu", engine="onnx")
    assert (grader.engine, bad.read_bytes() == whole) == ("onnx", True)
    assert list(bad.parent.iterdir()) == [bad]


def test_a_model_of_other_weights_is_neither_taken_nor_kept(cache, tmp_path, monkeypatch):
    (file,) = (cache / "onnx").iterdir()
    other = save(tmp_path / "other", "tiny", seed=1)
    auto = Grader.load(other, device="cpu", precision="fp32", awaited=engine.MADE_FROM - 1)
    assert auto.engine == "torch"  # the run's own would be taken: see the first test
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setattr(engine.Model, "_export", lambda model: file.read_bytes())
    with pytest.raises(DrError, match=r"answers otherwise.*--engine torch"):
        Grader.load(other, device="cpu", engine="onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_cache_that_cannot_be_written_stops_nobody(run, cache, tmp_path, monkeypatch):
    (file,) = (cache / "onnx").iterdir()
    (tmp_path / "onnx").touch()
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setattr(engine.Model, "_export", lambda model: file.read_bytes())
    assert Grader.load(run, device="cpu", engine="onnx").engine == "onnx"


@pytest.mark.parametrize(("most", "stay"), [(4, "bc"), (3, "c"), (1, "")])
def test_files_not_used_for_longest_go_as_a_new_one_comes(
    run, cache, tmp_path, monkeypatch, most, stay
):
    model = next((cache / "onnx").iterdir()).read_bytes()
    for age, name in enumerate("cba"):
        file = tmp_path / "onnx" / f"{name}.onnx"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(len(model)))
        os.utime(file, (1e9 - age, 1e9 - age))
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "MOST", most * len(model) - len(model) // 2)
    monkeypatch.setattr(engine.Model, "_export", lambda model_of: model)
    with (tmp_path / "onnx" / "a.onnx").open("rb") as read:  # by another process
        grader = Grader.load(run, device="cpu", engine="onnx")
        assert len(read.read()) == len(model)
    assert grader.engine == "onnx"
    left = {file.stem for file in (tmp_path / "onnx").iterdir()}
    assert {name for name in left if len(name) == 1} == set(stay)
    assert len(left) == len(stay) + (most > 1)


def test_a_cache_that_may_hold_nothing_gets_no_file(run, cache, tmp_path, monkeypatch):
    model = next((cache / "onnx").iterdir()).read_bytes()
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    monkeypatch.setenv("DR_CACHE_MAX", "0")
    monkeypatch.setattr(engine.Model, "_export", lambda model_of: model)
    assert Grader.load(run, device="cpu", engine="onnx").engine == "onnx"
    assert list((tmp_path / "onnx").iterdir()) == []


def test_nothing_holds_the_file_s_bytes_once_it_is_loaded(both):
    held = vars(both[1].members[0].onnx.session).values()
    assert not [one for one in held if isinstance(one, bytes)]


def test_a_file_that_is_removed_before_it_is_read_is_made_anew(run, cache, monkeypatch):
    (file,) = (cache / "onnx").iterdir()
    model = file.read_bytes()
    monkeypatch.setattr(engine.Model, "_export", lambda model_of: model)
    known = engine.Model(Grader.load(run, device="cpu", precision="fp32", engine="torch")
                         .members[0].network, Preprocessing(32, illumination="evened"))  # fmt: skip
    assert known.kept == file
    file.unlink()
    assert known.load()
    assert file.read_bytes() == model


RULE = {
    "bottlenecks": True, "runtime": True, "exporter": True, "kept": lambda: True,
    "awaited": math.inf,
}  # fmt: skip
ABSENT = {"kept": lambda: False}


@pytest.mark.parametrize(
    ("processor", "given", "pays"),
    [
        (CPU, {}, True),
        (CPU, ABSENT, True),
        (CPU, {"awaited": engine.KEPT_FROM}, True),
        (CPU, {"awaited": engine.KEPT_FROM - 1}, False),
        (CPU, {"awaited": 1}, False),
        (CPU, ABSENT | {"awaited": engine.MADE_FROM}, True),
        (CPU, ABSENT | {"awaited": engine.MADE_FROM - 1}, False),
        (CPU, {"exporter": False}, True),
        (CPU, ABSENT | {"exporter": False}, False),
        (CPU, {"runtime": False}, False),
        (CPU, {"bottlenecks": False}, False),
        (replace(CPU, dtype=torch.bfloat16), {}, False),
        (replace(CPU, device=torch.device("cuda")), {}, False),
    ],
)
def test_auto_takes_it_where_it_is_faster_and_pays(processor, given, pays):
    assert engine.pays(processor, **(RULE | given)) is pays


def test_auto_leaves_a_network_of_basic_blocks_to_torch(tmp_path):
    plain = save(tmp_path / "run", "resnet18")
    grader = Grader.load(plain, device="cpu", precision="fp32", awaited=math.inf)
    assert grader.engine == "torch"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--precision", "bf16"), "leave out --precision bf16"),
        (("--explain", "heat"), "leave out --engine onnx"),
    ],
)
def test_what_onnxruntime_cannot_do_is_one_line_and_2(run, photographs, options, says):
    done = dr(
        "predict", photographs[0], "--run", run, "--device", "cpu", "--engine", "onnx", *options
    )
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_the_extra_it_says_what_to_install(run, photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'dr-cli\[onnx\]'"):
        Grader.load(run, device="cpu", engine="onnx")
    auto = Grader.load(run, device="cpu", precision="fp32", awaited=math.inf)
    assert auto.engine == "torch"


def test_an_engine_is_one_of_three_and_onnxruntimes_is_on_a_cpu():
    with pytest.raises(UsageError, match="auto, torch, onnx"):
        engine.check("tensorrt", CPU)
    with pytest.raises(UsageError, match="--device cpu"):
        engine.check("onnx", replace(CPU, device=torch.device("cuda")))


def test_the_line_of_graders_says_it(run, cache, photographs):
    said = {}
    for one in ("torch", "onnx"):
        done = dr("predict", *photographs[:2], "--run", run, "--device", "cpu", "--precision",
                  "fp32", "--engine", one)  # fmt: skip
        assert done.exit_code == 0, done.stderr
        said[one] = done.stderr
    assert f"{run}, with onnxruntime; referable" in " ".join(said["onnx"].split())
    assert "onnxruntime" not in said["torch"]
