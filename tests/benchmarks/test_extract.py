import csv
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from .conftest import BENCHMARKS


@pytest.mark.slow
def test_both_rates_and_their_ratio_are_written(tmp_path, beside):
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    save_file(beside("cifar_resnets").ResNet20().state_dict(), tmp_path / "w.safetensors")
    command = [sys.executable, BENCHMARKS / "data" / "extract.py", "--images", tmp_path / "images",
               "--weights", tmp_path / "w.safetensors", "--rounds", "1", "--threads", "1",
               "--out", tmp_path / "r.csv"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "r.csv").open(newline="") as file:
        found = {(row["implementation"], row["metric"]): row for row in csv.DictReader(file)}
    assert set(found) == {
        ("bare loop", "rate"), ("lightsae", "rate"), ("lightsae", "rate over the bare loop's")
    }  # fmt: skip
    assert all(float(row["median"]) > 0 and row["cpu"] for row in found.values())
