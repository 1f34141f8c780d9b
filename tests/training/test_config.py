import dataclasses

import pytest
import torch

from dr_cli.dataset import augment
from dr_cli.errors import UsageError
from dr_cli.grades import DECISIONS, THRESHOLDS
from dr_cli.network import resnet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.scoring.calibration import OBJECTIVES
from dr_cli.training import learner, losses
from dr_cli.training.config import DEFAULT_LR, SMOOTHED, TrainConfig, choices, read_config
from dr_cli.training.optimizer import make_optimizer


def test_what_is_written_is_read_back():
    config = TrainConfig(arch="resnet50", lr=0.5, val="test", size=64)
    assert TrainConfig.from_dict(config.to_dict(), "config.json") == config


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"arch": "vgg"}, "--arch"),
        ({"epochs": 0}, "--epochs"),
        ({"pretrained": True, "weights": "x.pth"}, "--weights"),
        ({"ema": 1.0}, "--ema"),
        ({"loss": "mse", "label_smoothing": 0.1}, "--label-smoothing"),
        ({"lr": float("nan")}, "--lr"),
        ({"momentum": 0.5}, "--momentum"),
        ({"nesterov": False}, "--no-nesterov"),
    ],
)
def test_a_wrong_value_names_its_flag(options, named):
    with pytest.raises(UsageError, match=named):
        TrainConfig(**options)


def test_a_toml_file_is_read_and_checked(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('weight-decay = 1\nval = 0.2\narch = "resnet34"\n', encoding="utf-8")
    config = TrainConfig.from_dict(read_config(file), str(file))
    assert (config.weight_decay, config.val, config.arch) == (1.0, "0.2", "resnet34")
    with pytest.raises(UsageError, match="no option"):
        TrainConfig.from_dict({"epoch": 3}, str(file))
    with pytest.raises(UsageError, match="epochs"):
        TrainConfig.from_dict({"epochs": "three"}, str(file))
    file.write_text("epochs = = 3", encoding="utf-8")
    with pytest.raises(UsageError, match="TOML"):
        read_config(file)


def test_every_field_says_what_it_means():
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["help"].endswith((".", "]")), field.name


def test_choices_are_those_that_the_rooms_below_know():
    assert choices("arch") == tuple(resnet.ARCHITECTURES)
    assert choices("loss") == tuple(losses.RULES)
    assert set(SMOOTHED) < set(losses.RULES)
    assert choices("augment") == tuple(augment.LEVELS)
    assert set(choices("optimizer")) == set(DEFAULT_LR)
    assert choices("decision") == (*DECISIONS, THRESHOLDS)
    assert {*OBJECTIVES, "argmax"} == set(DECISIONS)
    assert TrainConfig(decision="thresholds").decision == "qwk"
    for illumination in choices("illumination"):
        assert Preprocessing(64, illumination=illumination).illumination == illumination


def test_every_optimiser_and_schedule_is_another_one():
    """Each word of the field does something of its own."""
    made = [
        make_optimizer(torch.nn.Linear(2, 2), TrainConfig(optimizer=name))
        for name in choices("optimizer")
    ]
    assert [type(one).__name__.lower() for one in made] == list(choices("optimizer"))
    late = {learner.schedule_rate(TrainConfig(schedule=s), 9, 4) for s in choices("schedule")}
    assert len(late) == len(choices("schedule"))
