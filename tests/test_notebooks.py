"""The notebooks of the documentation run from their first cell to the last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")  # those of Jupyter are its own
def test_it_runs(path: Path, tmp_home: Path) -> None:
    """Each cell does what it says; a cell that warns is a failure, too."""
    notebook = nbformat.read(path, as_version=4)
    work = tmp_home / "work"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    said = [output["text"] for output in outputs if output.get("name") == "stderr"]
    expected = {"workstation": 1}.get(path.stem, 0)  # of the layer that is out of reach
    assert len(said) <= expected, said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    """The documentation shows the outputs of the run that built it."""
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_there_are_some() -> None:
    assert len(NOTEBOOKS) >= 3


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
def test_progress_in_a_notebook(tmp_home: Path) -> None:
    """A bar below the cell, of which one line stays; no widget is needed, and nothing warns."""
    first = """
from fleche import Call
from fleche.caches import Local
near, far = Local("near"), Local("far")
for x in range(30):
    near.save(Call("f", {"x": x}, result=bytes(range(256)) * 160))
"""
    source = (
        first,
        "near.push(far, progress=True)",
        "near.verify(progress=True)",
        "far.pull(3, progress=True)",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in source])
    resources = {"metadata": {"path": str(tmp_home / "work")}}
    NotebookClient(notebook, timeout=240, resources=resources, allow_errors=True).execute()
    pushed, verified, failed = (cell.outputs for cell in notebook.cells[1:])
    for outputs, text in ((pushed, "copying: 30 of 30, "), (verified, "checking: ")):
        assert [each.output_type for each in outputs] == ["display_data", "execute_result"]
        assert text in outputs[0].data["text/plain"]
        assert "<progress" not in outputs[0].data["text/html"]
    assert failed[-1].output_type == "error"
