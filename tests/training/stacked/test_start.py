"""What a stack tells and refuses as it starts, as a run of its own does."""

from pathlib import Path

import pytest

from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, L1L2Ratio, MonosemanticityLoss
from lightsae.training.stacked import Member, StackedModule

from ..helpers import make_data, make_trainer
from .helpers import maker, train_stacked


@pytest.mark.parametrize(
    ("aux_k", "says"),
    [
        (AuxK(dead_after_multiple=2), "aux_k: a latent is dead after 16 rows"),
        (None, "train/dead_fraction: a latent is dead after 640 rows"),
    ],
    ids=["AuxK", "no AuxK"],
)
def test_it_tells_once_after_how_many_rows_a_latent_is_dead(
    aux_k: AuxK | None, says: str, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="lightsae"):
        train_stacked([maker(None, 0.01, aux_k=aux_k)] * 2, shards, tmp_path)
    [told] = [text for text in caplog.messages if "rows without firing" in text]
    assert told.startswith(says)


def test_it_warns_of_a_member_whose_lambda_does_not_rise(shards: Path, tmp_path: Path) -> None:
    makes = [maker(None, 0.01), maker(L1L2Ratio(0.1, weight_warmup=40), 0.01)]
    with pytest.warns(UserWarning, match="weight_warmup = 40 is longer than the run, which has 20"):
        train_stacked(makes, shards, tmp_path)


@pytest.mark.parametrize("where", ["member", "probe"])
def test_it_refuses_data_without_the_embeddings_that_are_read(
    where: str, shards: Path, tmp_path: Path
) -> None:
    reads = MonosemanticityLoss(0.1, "data")
    member = Member.made("a", 0, maker(reads if where == "member" else None, 0.01))
    stacked = StackedModule([member], {"MS": reads} if where == "probe" else None)
    with pytest.raises(LightsaeError, match="give the data module embeddings"):
        make_trainer(tmp_path).fit(stacked, make_data(shards))
    assert not hasattr(member.module, "sae")
