"""The numbers of a study as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from lightsae.demo.study import Scores
from lightsae.files import replacing


def save_results(path: Path, tried: Iterable[Scores], final: Iterable[Scores]) -> None:
    """Write every score: the grid on the validation split, the paired seeds on the test split."""
    content = {
        "grid_validation": [asdict(scores.validation) for scores in tried],
        "seeds_test": [asdict(scores.test) for scores in final],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
