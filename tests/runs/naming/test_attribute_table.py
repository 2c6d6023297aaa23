"""Tables of attributes: a line for each sample."""

from pathlib import Path

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.runs.naming.attribute_table import read_attributes


def test_values_are_read_by_sample_whatever_their_order(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    text = '\ufeffsample,"red, or so",big\r\n9,1,-1\r\n\r\n 2 ,False,TRUE\r\n'
    path.write_bytes(text.encode())
    found = read_attributes(path)
    assert found.names == ["red, or so", "big"] and found.samples.tolist() == [2, 9]
    known, has = found.of(torch.tensor([9, 5, 2, 100, -1]))
    assert known.tolist() == [True, False, True, False, False]
    assert has.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: expected a header: sample and the names"),
        ("sample\n1\n", ":1: expected a header"),
        ("image,a\n1,1\n", ":1: expected a header"),
        ("sample,a,a\n", ":1: attribute 'a' is empty or there twice"),
        ("sample,a,\n", ":1: attribute '' is empty"),
        ("sample,a\n", " has no samples"),
        ("sample,a\n1,1,0\n", ":2: 3 values, expected 2"),
        ("sample,a\n1,1\n1,0\n", ":3: sample 1 is there twice"),
        ("sample,a\n-1,1\n", ":2: sample is '-1', expected a number"),
        ("sample,a\n" + "9" * 30 + ",1\n", ":2: sample is '9999"),
        ("sample,a\n1,yes\n", ":2: a is 'yes', expected 0 or 1"),
        ('sample,a\n1,"1\n', " is no CSV"),
        ("sample,\udcff\n", " is not UTF-8: byte 7"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LightsaeError) as error:
        read_attributes(path)
    assert str(error.value).startswith(f"{path}{told}")
