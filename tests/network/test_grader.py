import gc
import io
import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

from dr_cli import runs
from dr_cli.device import choose
from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold, softmax
from dr_cli.network.grader import Grader, Member, logits_of
from dr_cli.network.resnet import ResNet, build_resnet
from dr_cli.network.telling import FIELDS
from dr_cli.photographs.crop import Preprocessing, load_crop
from tests.builders.photographs import picture

WAY = Preprocessing(64)


def untrained(seed=0):
    torch.manual_seed(seed)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight)  # some evidence for every grade
    return network


def save(folder, seed=0, way=WAY, temperature=1.0):
    record = runs.ModelRecord("resnet18", way.to_dict(), Calibration(temperature=temperature))
    folder.mkdir(parents=True, exist_ok=True)
    runs.Run(folder).save_model(untrained(seed).state_dict(), record)
    return folder


@pytest.fixture(scope="module")
def pixels(photographs):
    crops = [load_crop(path, WAY).pixels for path in photographs]
    return torch.from_numpy(np.stack(crops))


def batches(pixels):
    """Two and three photographs; they can be walked once."""
    return ((part, None, None) for part in pixels.split(2))


@pytest.fixture
def seen():
    """How many pictures went through the first convolution of any network, a number a pass."""
    counts = []

    def count(module, inputs, output):
        if getattr(module, "in_channels", None) == 3:
            counts.append(len(output))

    handle = register_module_forward_hook(count)
    yield counts
    handle.remove()


def test_a_heatmap_costs_no_second_pass(photographs, seen, tmp_path):
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    list(grader.predict(photographs, batch_size=5, explain=tmp_path / "heat"))
    assert seen == [5]
    assert len(list((tmp_path / "heat").iterdir())) == 5


def test_a_grader_keeps_one_network_a_run(tmp_path):
    def alive():
        gc.collect()
        return sum(type(one) is ResNet for one in gc.get_objects())

    sources, before = [save(tmp_path / str(seed), seed) for seed in range(2)], alive()
    grader = Grader.load(sources, device="cpu", precision="fp32")
    assert alive() - before == len(grader.members) == 2


def test_the_folded_network_answers_as_the_plain_one(pixels):
    processor = choose("cpu", "fp32")
    plain = logits_of(untrained(), batches(pixels), WAY, processor)
    grader = Grader([Member(untrained(), WAY, Calibration(), processor)])
    found = grader.probabilities(batches(pixels))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, softmax(plain), atol=1e-6)


def test_in_bf16_the_bits_are_those_of_the_run_itself(pixels):
    processor = choose("cpu", "bf16")
    plain = logits_of(untrained(), batches(pixels), WAY, processor)
    grader = Grader([Member(untrained(), WAY, Calibration(), processor)])
    assert np.array_equal(grader.probabilities(batches(pixels)), softmax(plain))


def test_with_tta_probabilities_are_the_mean_of_the_eight_ways_a_square_can_lie(pixels):
    processor = choose("cpu", "fp32")
    views = [p.rot90(k, (2, 3)) for p in (pixels, pixels.flip(3)) for k in range(4)]
    each = [softmax(logits_of(untrained(), batches(view), WAY, processor)) for view in views]
    grader = Grader([Member(untrained(), WAY, Calibration(), processor)])
    found = grader.probabilities(batches(pixels), tta=True)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


def test_several_runs_are_averaged_each_with_its_own_calibration(pixels, tmp_path):
    temperatures = (0.5, 3.0)
    sources = [save(tmp_path / f"{t}", k, temperature=t) for k, t in enumerate(temperatures)]
    done = []
    grader = Grader.load(sources, device="cpu", precision="fp32")
    found = grader.probabilities(batches(pixels), done.append)
    processor = choose("cpu", "fp32")
    each = [
        softmax(logits_of(untrained(k), batches(pixels), WAY, processor) / t)
        for k, t in enumerate(temperatures)
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    assert done == [2, 4, 5]
    assert grader.probabilities([]).shape == (0, 5)


def test_predict_tells_the_same_probabilities(photographs, pixels, tmp_path):
    grader = Grader.load([save(tmp_path / str(k), k) for k in range(2)], device="cpu")
    records = list(grader.predict(photographs, batch_size=2))
    wanted = grader.probabilities(batches(pixels))
    np.testing.assert_allclose([one["probabilities"] for one in records], wanted, atol=1e-6)
    assert [one["path"] for one in records] == [str(path) for path in photographs]


def test_a_record_has_its_fields_in_order_whatever_happened(photographs, tmp_path):
    grader = Grader.load(save(tmp_path / "run"), device="cpu")
    good, bad = grader.predict([photographs[0], tmp_path / "none.png"])
    assert tuple(good) == tuple(bad) == FIELDS
    assert good["error"] is None
    assert good["verdict"] in {"good", "usable", "reject"}
    assert (good["verdict"] == "reject") == (not good["gradable"])
    assert (good["verdict"] == "good") == (good["reason"] == "")
    known = ["path", "error", "referable_threshold"]
    assert [name for name, value in bad.items() if value is not None] == known


@pytest.mark.parametrize(
    ("cuts", "threshold", "note"),
    [
        ((5.0, 6.0, 7.0, 8.0), 0.0, "graded 0, yet referable: "),
        ((-4.0, -3.0, -2.0, -1.0), 1.5, "graded 4, yet not referable: "),
        ((5.0, 6.0, 7.0, 8.0), 1.5, ""),
        ((-4.0, -3.0, -2.0, -1.0), 0.0, ""),
    ],
)
def test_a_grade_and_a_referral_that_disagree_are_explained(photographs, cuts, threshold, note):
    """They are two rules: of 960 real photographs 214 were graded 0, and referable."""
    point = OperatingPoint(Threshold(threshold, "by hand"))
    calibration = Calibration(cuts, operating_point=point)
    grader = Grader([Member(untrained(), WAY, calibration, choose("cpu", "fp32"))])
    (record,) = grader.predict(photographs[0])
    assert record["referable_threshold"] == threshold
    assert record["note"].startswith(note)
    assert bool(record["note"]) is bool(note)
    assert not note or f"threshold {threshold:.3g}" in record["note"]


def test_with_flips_the_heatmap_is_of_the_photograph_as_it_is(photographs, tmp_path):
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    shown, grades = [], []
    for tta in (False, True):
        folder = tmp_path / f"heat-{tta}"
        (record,) = grader.predict(photographs[:1], tta=tta, explain=folder)
        grades.append(record["predicted"])
        shown.append(Path(record["heatmap"]).read_bytes())
    assert grades[0] == grades[1]
    assert shown[0] == shown[1]


def test_members_that_crop_alike_say_how_and_others_are_refused(tmp_path):
    runs_of_64 = [save(tmp_path / str(k), k) for k in range(2)]
    assert Grader.load(runs_of_64, device="cpu").preprocessing == WAY
    mixed = Grader.load([*runs_of_64, save(tmp_path / "large", way=Preprocessing(96))])
    with pytest.raises(UsageError, match="with size 64 and 96:"):
        _ = mixed.preprocessing
    older = Grader.load(
        [*runs_of_64, save(tmp_path / "old", way=Preprocessing(64, field="runs-1"))]
    )
    with pytest.raises(UsageError, match="with field runs-2 and runs-1:"):
        _ = older.preprocessing


def test_one_photograph_is_one_whatever_it_comes_as(photographs, tmp_path):
    """A name's letters were once read as paths."""
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    (wanted,) = grader.predict([photographs[2]])
    with Image.open(photographs[2]) as image:
        opened = image.convert("RGB")
        opened.load()
        named = image.copy()
    alike = [str(photographs[2]), photographs[2], opened, np.asarray(opened), [opened]]
    for one in alike:
        (record,) = grader.predict(one)
        assert record["probabilities"] == wanted["probabilities"]
        assert record["error"] is None
    grey = np.asarray(opened.convert("L"))
    assert [r["path"] for r in grader.predict([named, grey])] == ["", ""]
    with pytest.raises(TypeError, match="int is no photograph"):
        grader.predict(3)
    with pytest.raises(ValueError, match="at least 1 photograph"):
        grader.predict("1.png", batch_size=-1)
    with pytest.raises(TypeError, match="NoneType is no photograph"):
        list(grader.predict([None]))
    with pytest.raises(TypeError, match=r"float64 \[4, 4, 3\] is no picture"):
        list(grader.predict(np.zeros((4, 4, 3))))
    (record,) = grader.predict(opened, explain=tmp_path / "heat")
    assert [str(path) for path in (tmp_path / "heat").iterdir()] == [record["heatmap"]]
    assert Path(record["heatmap"]).name.startswith("photograph-")


def test_a_files_content_is_a_photograph_too(photographs, tmp_path):
    """As it comes by the net: bytes, or a file; it would have been walked line by line."""
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    (wanted,) = grader.predict(photographs[2])
    data = photographs[2].read_bytes()
    stream = io.BytesIO(data)
    stream.seek(5)
    with open(photographs[2], "rb") as file:
        for one in (data, stream, file, [data]):
            (record,) = grader.predict(one)
            assert record["probabilities"] == wanted["probabilities"]
            assert record["path"] == (str(photographs[2]) if one is file else "")
    for broken, said in ((data[:200], "truncated"), (b"no picture", "not an image"), (b"", "")):
        (record,) = grader.predict(broken)
        assert said in record["error"]
        assert record["predicted"] is None


def test_a_picture_that_gives_no_pixels_keeps_its_record(photographs, tmp_path):
    """Pillow reads a file when its pixels are asked for: what it raised then ended all of it."""
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    data = photographs[2].read_bytes()
    closed = Image.open(photographs[2])
    closed.close()
    broken = {
        "truncated": Image.open(io.BytesIO(data[: len(data) // 2])),
        "closed": closed,
        "without a pixel": np.zeros((0, 5, 3), np.uint8),
    }
    *failed, good = grader.predict([*broken.values(), photographs[2]])
    for said, record in zip(broken, failed, strict=True):
        assert said in record["error"]
    assert good["error"] is None


def test_a_heatmap_is_named_by_its_photograph_and_as_large_as_that_allows(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        picture(2, size=300).save(tmp_path / folder / "eye.left.png")
    paths = sorted(tmp_path.glob("?/eye.left.png"))
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    heat = tmp_path / "heat"
    plain = list(grader.predict(paths))
    assert [record["heatmap"] for record in plain] == [None, None]
    records = list(grader.predict(paths, explain=heat))
    names = [Path(record["heatmap"]).name for record in records]
    assert names[0] != names[1]
    assert all(re.fullmatch(r"eye\.left-[0-9a-f]{8}\.jpg", name) for name in names)
    for record in records:
        with Image.open(record["heatmap"]) as shown:
            assert min(shown.size) > 250  # the crop that the network saw has 64
    list(grader.predict(paths, explain=heat))
    assert sorted(path.name for path in heat.iterdir()) == sorted(names)  # none a second time
    for record, before in zip(records, plain, strict=True):
        assert record["probabilities"] == before["probabilities"]


@pytest.mark.parametrize(
    "name", ["a\0b.jpg", "\0", "../../up.jpg", "..", 60 * "\U0001f441"], ids=ascii
)
def test_a_heatmap_is_drawn_whatever_a_content_is_called(photographs, tmp_path, name):
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    upload = io.BytesIO(photographs[2].read_bytes())
    upload.name = name
    (record,) = grader.predict(upload, explain=tmp_path / "heat")
    assert [str(path) for path in (tmp_path / "heat").iterdir()] == [record["heatmap"]]


def test_at_32_pixels_a_heatmap_is_more_than_one_colour(tmp_path):
    picture(2, size=64).save(tmp_path / "eye.png")
    grader = Grader.load(save(tmp_path / "run", way=Preprocessing(32)), device="cpu")
    (record,) = grader.predict(tmp_path / "eye.png", explain=tmp_path / "heat")
    with Image.open(record["heatmap"]) as shown, Image.open(tmp_path / "eye.png") as image:
        opened = image.convert("RGB").resize(shown.size)
        changed = np.abs(np.asarray(shown, float) - np.asarray(opened, float)).sum(2)
    assert changed.max() > 4 * max(1.0, changed.min())


def test_with_ends_the_threads_of_records_that_nobody_asks_for_any_more(photographs):
    def working():
        return [one.name for one in threading.enumerate() if one.name.startswith("dr-work")]

    member = Member(untrained(), WAY, Calibration(), choose("cpu"))
    with Grader([member]) as grader:
        records = grader.predict(itertools.cycle(photographs), workers=2, batch_size=1)
        assert next(records)["error"] is None
        assert working()
    assert not working()
    assert list(records) == []
    assert len(list(grader.predict(photographs[:1]))) == 1  # it may be used on


def test_several_threads_may_ask_at_once(photographs, tmp_path):
    grader = Grader.load(save(tmp_path / "run"), device="cpu", precision="fp32")
    wanted = [one["probabilities"] for one in grader.predict(photographs, batch_size=1)]

    def ask(k):
        folder = tmp_path / f"heat{k}" if k % 2 else None
        records = grader.predict(photographs, batch_size=1, workers=1, explain=folder)
        return [one["probabilities"] for one in records]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [wanted] * 4
