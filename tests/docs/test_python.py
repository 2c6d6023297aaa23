"""docs/python.md as a reader would try it: its code runs from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the code of the page leaves behind."""
    found: dict[str, Any] = {"__name__": "__main__"}
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        torch.set_num_threads(1)
        for number, block in enumerate(blocks(PAGE)):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), found)
        torch.set_num_threads(threads)
    return found


def test_the_page_leads_from_arrays_to_metrics(names: dict[str, Any]) -> None:
    assert names["tested"]["test/r2"] > 0.7
    assert names["r2"].compute() == pytest.approx(names["tested"]["test/r2"], abs=1e-6)
    assert names["l0"].compute() == pytest.approx(names["tested"]["test/l0"])
    assert names["dead"].compute() == names["tested"]["test/dead"]
    assert names["ms"].compute().n_scored > 0


def test_what_is_saved_is_what_was_trained(names: dict[str, Any]) -> None:
    for name, tensor in names["module"].sae.state_dict().items():
        assert torch.equal(tensor, names["sae"].state_dict()[name])


def test_pooling_one_row_per_image_changes_no_score(names: dict[str, Any]) -> None:
    torch.testing.assert_close(
        names["scores"].scores, names["ms"].compute().scores, rtol=1e-9, atol=1e-9, equal_nan=True
    )


def test_the_files_of_predict_hold_the_codes_of_every_row_in_order(names: dict[str, Any]) -> None:
    sae, activations = names["sae"], torch.from_numpy(names["activations"])
    assert names["d_sae"] == sae.d_sae
    assert len(names["indptr"]) == len(activations) + 1
    dense = sae.encode(activations[7:8]).to_dense()[0]
    expected = torch.zeros(sae.d_sae).scatter(
        0, names["indices"][names["row"]], names["values"][names["row"]]
    )
    torch.testing.assert_close(expected, dense.detach(), rtol=1e-5, atol=1e-6)


def test_the_page_is_linked() -> None:
    root = PAGE.parents[1]
    assert "(docs/python.md)" in (root / "README.md").read_text()
    assert "docs/python.md" in (root / "CONTRIBUTING.md").read_text()
