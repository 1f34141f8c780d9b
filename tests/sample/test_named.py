"""Drawn sets by their names, wherever DATA is read."""

import json

import pytest

from dr_cli.errors import UsageError
from dr_cli.sample import named
from tests.builders.program import dr


def test_what_is_left_out_is_the_default_sets():
    assert named.parse("sample:") == {"n": 600, "size": 224, "seed": 0}
    assert named.parse("sample:seed=3,n=20000") == {"n": 20000, "size": 224, "seed": 3}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sample:m=3", "'m=3' is none of n=…, size=…, seed=…"),
        ("sample:600", "'600' is none of"),
        ("sample:n=0", "n is a number from 1 to 10,000,000"),
        ("sample:n=two", "n is a number"),
        ("sample:size=2000", "size is a number from 64 to 1,024"),
        ("sample:seed=-1", "seed is a number from 0"),
    ],
)
def test_a_wrong_part_is_one_line(name, said):
    with pytest.raises(UsageError) as error:
        named.parse(name)
    line = str(error.value)
    assert line.startswith(f"{name}: ")
    assert said in line
    assert "such as sample:n=20000,size=224,seed=3" in line
    assert "\n" not in line


def test_the_folder_tells_its_name():
    assert named.spell("/cache/sample/4-600-224-0") == named.DEFAULT
    assert named.spell("C:\\cache\\sample\\3-8-64-1\\") == "sample:n=8,size=64,seed=1"
    assert named.spell("/cache/sample/else") is None


def test_every_command_takes_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    name = "sample:n=24,size=64,seed=3"
    done = dr("train", name, "--epochs", 1, "--size", 32, "--quiet")
    assert done.exit_code == 0, done.output
    (drawn,) = (tmp_path / "cache" / "sample").iterdir()
    assert drawn.name.endswith("-24-64-3")
    run = tmp_path / "runs" / "resnet18"
    assert json.loads((run / "config.json").read_text())["data"]["drawn"]
    done = dr("eval", run, "sample:n=6,size=64,seed=4", "--split", "all", "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n"] == 6
    done = dr("predict", "sample:n=4,size=64,seed=5", "--run", run, "--format", "jsonl")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 4
    told = json.loads(dr("report", run, "--format", "json").stdout)["runs"][0]
    assert told["data"]["root"] == name
    assert told["command"].startswith(f"dr train {name} ")


def test_a_wrong_name_is_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_CACHE", str(tmp_path))
    for command in (("train", "sample:n=0"), ("train", tmp_path, "--val", "sample:n=0")):
        done = dr(*command)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "sample:n=0: n is a number from 1" in done.stderr
