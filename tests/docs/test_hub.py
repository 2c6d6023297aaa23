"""docs/hub.md: its Python runs from top to bottom, with a local server in place of the Hub."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.sae import SparseAutoencoder, TopK

from ..sae.hub_server import OLD_UPLOAD, local_hub
from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "hub.md"


@pytest.mark.filterwarnings(OLD_UPLOAD)
def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    with local_hub(tmp_path) as hub:
        there = SparseAutoencoder(8, 32, TopK(4))
        there.push_to_hub("you/dinov2-saes", "blocks.11")
        commits = hub.repos["you/dinov2-saes"].commits
        for number, block in enumerate(blocks(PAGE)):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["sae"].origin == ("you/dinov2-saes", "blocks.11", commits[1][0])
    assert names["address"].endswith(commits[2][0])
    assert torch.equal(names["sae"].W_enc, there.W_enc)


def test_the_page_is_linked() -> None:
    assert "(docs/hub.md)" in (PAGE.parents[1] / "README.md").read_text()
