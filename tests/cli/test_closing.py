"""What `dr train` says at its end."""

import pytest

from dr_cli.cli.closing import close
from dr_cli.runs import Run
from tests.builders.runs import edit, write_run


@pytest.mark.parametrize("one_grade", [False, True])
def test_a_run_that_calls_every_image_one_grade_says_what_to_try(tmp_path, one_grade):
    folder = write_run(tmp_path / "a run")
    if one_grade:
        with edit(folder / "summary.json") as summary:
            rows = summary["test"]["confusion"]
            summary["test"]["confusion"] = [[sum(row), 0, 0, 0, 0] for row in rows]
    lines = list(close(Run(folder)))
    assert lines[0] == "kept        epoch 3 of 4"
    assert lines[-2] == f"next        dr eval '{folder}'"
    assert next(line for line in lines if line.startswith("test ")).count("(") == 2  # intervals
    assert any(line.startswith("baseline") for line in lines)
    assert any(line.startswith("try ") for line in lines) == one_grade
