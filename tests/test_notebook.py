"""examples/notebook.ipynb runs, and what it shows is what it was kept with.

`python -m tests.test_notebook` runs it and keeps its outputs anew.
"""

import json
import os
import re
import tempfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat comes with the test extra")
nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the test extra")
pytest.importorskip("ipykernel", reason="ipykernel comes with the test extra")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
TRAINS = "run = train("  # what comes from there on differs from machine to machine in its figures


def execute(folder: Path, epochs: str = "epochs=8"):
    """The notebook, its cells run in order in an empty folder."""
    notebook = nbformat.reads(
        NOTEBOOK.read_text(encoding="utf-8").replace("epochs=8", epochs), as_version=4
    )
    client = nbclient.NotebookClient(
        notebook, timeout=250, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    return client.execute()


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_CACHE", str(folder / "cache"))
        patch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
        return execute(folder, "epochs=1")  # the others change figures alone


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell) -> list[tuple[str, ...]]:
    """Of each output of a cell what it is, and as which kinds it is told."""
    return [(one.output_type, *sorted(one.get("data", {}))) for one in cell.outputs]


def test_the_outputs_kept_are_those_of_the_code(kept, made):
    assert [shown(cell) for cell in codes(made)] == [shown(cell) for cell in codes(kept)]
    for one, other in zip(codes(made), codes(kept), strict=True):
        if TRAINS in one.source:
            break
        assert one.outputs == other.outputs
    else:
        pytest.fail("the notebook trains nothing")


def test_it_was_run_in_order_without_a_word_on_stderr(kept):
    cells = codes(kept)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for kind, *_ in shown(cell)]
    assert set(kinds) == {"execute_result"}


def test_it_shows_a_set_a_record_a_grader_a_matrix_and_heatmaps(kept):
    outputs = [output for cell in codes(kept) for output in cell.outputs]
    pages = ["".join(one.get("data", {}).get("text/html", "")) for one in outputs]
    parts = ("grade 0", "Referable AUC", "learned from", "true \\ predicted", "data:image/jpeg")
    assert not [part for part in parts if not any(part in page for page in pages)]
    assert max(page.count("<img ") for page in pages) == 4


def test_it_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    without = re.sub(r"base64,[\w+/=]+", "", text)
    places = {str(Path.home()), os.getcwd(), tempfile.gettempdir(), "/home/", "/root", "C:\\\\"}
    assert not [place for place in places if place in without]
    assert json.loads(text)["metadata"].keys() == {"kernelspec", "language_info"}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(Path(folder))
    notebook.metadata.language_info = {"name": "python"}  # no version: any will do
    nbformat.write(notebook, NOTEBOOK)
