"""What is decided before the first step."""

import pytest

from dr_cli import device
from dr_cli.labels import reading
from dr_cli.photographs import duplicates
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import make_plans
from tests.builders import photographs
from tests.builders.listener import Listener


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return photographs.course(tmp_path_factory.mktemp("plan") / "course", train=30, test=10)


def plan(data, heard=None, **options):
    config = TrainConfig(size=32, **options)
    return make_plans(
        config, reading.read(data), device.choose("cpu", "fp32"), cache=False,
        observer=heard or Listener(),
    )  # fmt: skip


def test_what_is_found_in_the_data_set_of_val_is_told(data, tmp_path):
    other = photographs.course(tmp_path / "other", train=12, test=5)
    (other / "train" / "name-\udcff.png").touch()  # no valid name: worth a warning
    heard = Listener()
    (planned,) = plan(data, heard, val=str(other))
    assert any("no valid name" in warning for warning in heard.warnings)
    assert len(planned.indices("val")) == 17
    assert len([note for note in heard.notes if note.startswith("layout")]) == 1


def test_folds_look_at_the_photographs_once_and_hold_each_out_once(data, monkeypatch):
    looks = []
    real = duplicates.find
    monkeypatch.setattr(
        duplicates, "find", lambda *given, **more: looks.append(1) or real(*given, **more)
    )
    plans = plan(data, folds=3)
    assert looks == [1]
    assert [one.fold for one in plans] == [1, 2, 3]
    held = sorted(index for one in plans for index in one.indices("test"))
    assert held == list(range(40))
    assert all(one.dataset is plans[0].dataset for one in plans)
    assert all(one.config.batch_size for one in plans)
