"""How far a photograph is from those that were learned from."""

import numpy as np
import pytest
import torch

from dr_cli import runs
from dr_cli.grades import Calibration
from dr_cli.network.grader import Grader
from dr_cli.network.novelty import Familiar
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from tests.builders.photographs import picture

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(64, 64)) * np.exp(-np.arange(64) / 8)[:, None]


def features(n, shift=0.0):
    return np.random.default_rng(n).normal(size=(n, 64)) @ MIX + shift


def test_five_of_a_hundred_held_out_are_far_and_others_more():
    known = Familiar.fit(features(400), features(200))
    assert (known.novelty(features(200)) > 1).mean() == pytest.approx(0.05, abs=0.005)
    assert (known.novelty(features(201)) > 1).mean() < 0.15
    assert (known.novelty(features(201, shift=1)) > 1).mean() > 0.95


def test_the_distance_is_that_of_the_gaussian():
    """Against the full covariance, where all directions are kept one by one but one."""
    learned = np.random.default_rng(1).normal(size=(5000, 8)) * np.arange(1, 9)
    known = Familiar.fit(learned, learned)
    point = np.random.default_rng(2).normal(size=(20, 8)) * np.arange(1, 9)
    off = point - learned.mean(axis=0)
    exact = np.sqrt(np.einsum("ni,ij,nj->n", off, np.linalg.inv(np.cov(learned.T)), off))
    assert known.distance(point) == pytest.approx(exact, rel=5e-3)


def test_it_travels_as_plain_values():
    known = Familiar.fit(features(400), features(200))
    record = known.to_record()
    again = Familiar.from_record(record)
    assert again.novelty(features(50)) == pytest.approx(known.novelty(features(50)), rel=1e-4)
    assert sum(len(value) for value in record.values() if isinstance(value, str)) < 8000


@pytest.mark.parametrize(
    "learned", [features(19), np.ones((50, 64)), np.full((50, 64), np.nan)], ids=str
)
def test_features_that_tell_nothing_give_none(learned):
    assert Familiar.fit(learned, learned) is None


@pytest.fixture
def photographs(tmp_path):
    for grade in range(5):
        picture(grade, size=96).save(tmp_path / f"{grade}.png")
    return sorted(tmp_path.glob("*.png"))


def save(folder, known):
    torch.manual_seed(0)
    folder.mkdir()
    record = runs.ModelRecord(
        "resnet18", Preprocessing(64).to_dict(), Calibration(), familiar=known and known.to_record()
    )
    runs.Run(folder).save_model(build_resnet("resnet18").state_dict(), record)
    return folder


def load(*folders):
    return Grader.load(list(folders), device="cpu", precision="fp32")


def test_records_have_it_where_the_weights_know(photographs, tmp_path):
    wide = Familiar(np.zeros(512), np.eye(512)[:4], np.ones(4), 1.0, 2.0)
    known, unknown = save(tmp_path / "a", wide), save(tmp_path / "b", None)
    plain = [record["novelty"] for record in load(known).predict(photographs)]
    assert all(value > 0 for value in plain)
    for how in ({"tta": True}, {"explain": tmp_path / "heat"}):
        again = [record["novelty"] for record in load(known).predict(photographs, **how)]
        assert again == pytest.approx(plain, abs=2e-3)
    assert {record["novelty"] for record in load(unknown).predict(photographs)} == {None}
    assert {record["novelty"] for record in load(known, unknown).predict(photographs)} == {None}
    (lost,) = load(known).predict("absent.png")
    assert lost["novelty"] is None
