import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from lightsae.dictionaries.examples.vocabulary_names.__main__ import main
from lightsae.dictionaries.examples.vocabulary_names.anchored import Fitting
from lightsae.dictionaries.examples.vocabulary_names.text_model import TextModel

SENTENCES = (
    "the king said to the queen that the night was long",
    "a good man is not a good king",
    "where is my lord and where is his sword",
)


def test_the_example_at_a_reduced_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{SENTENCES[n * n % 7 % 3]}.\n" for n in range(1500)))
    model = TextModel(tokens=60, window=16, width=24, layers=2, block=0, steps=80, lr=1e-2)
    fitting = Fitting(d_sae=64, k=4, epochs=1, batch_size=128, lr=1e-2, weights=(1000,))
    main(["--data", str(path)], model, fitting)
    printed = capsys.readouterr().out
    [row] = re.findall(r"^ *1000.*?(\d+\.\d)% +(\d+\.\d)%", printed, re.MULTILINE)
    assert float(row[0]) > 80, "a heavy anchor aligns latents"
    assert "eached: 80% of latents at cosine 0.8" in printed
    assert "the name is the token at" in " ".join(printed.split())
    assert re.search(r"latent \d+ '.+': the token at \d+%, the next at \d+%", printed)
