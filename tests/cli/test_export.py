"""`dr export` on a command line; what is in the file: tests/network/test_export.py."""

import pytest

from dr_cli.network import export as core
from tests.builders.photographs import picture
from tests.builders.program import dr


def test_export_writes_beside_the_weights_and_says_how_it_agrees(world):
    run = world / "runs" / "first"
    done = dr("export", run, "--format", "torch")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{run / 'model.pt2'}\n"
    assert "on 16 drawn eyes: probabilities differ by at most" in done.stderr
    (run / "model.pt2").unlink()


def test_photographs_to_check_on_are_named(world, tmp_path, monkeypatch):
    seen = []

    def keep(sources, file, form, crops):
        seen.append(crops.shape)
        return core.Agreement(len(crops), 2e-7, 1)

    monkeypatch.setattr(core, "export", keep)
    picture(2, size=96).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = dr("export", world / "runs" / "first", "--check", tmp_path)
    assert done.exit_code == 0, done.output
    assert [shape[0] for shape in seen] == [1]
    assert "b.png" in done.stderr
    assert "on 1 photograph: probabilities differ by at most 2e-07, 1 graded or" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}", "{run}"], "--out FILE"),
        (["{run}", "--out", "x.pt2"], "ends in .onnx"),
        (["{run}", "--check", "{empty}"], "no photograph"),
        (["{empty}"], "no weights"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(world, tmp_path, arguments, says):
    (tmp_path / "bare").mkdir()
    names = {"run": world / "runs" / "first", "empty": tmp_path / "bare"}
    done = dr("export", *(a.format(**names) for a in arguments))
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
