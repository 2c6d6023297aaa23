"""Names of latents tested on a small language model with random weights."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightsae.dictionaries import name_latents
from lightsae.dictionaries.naming.token_vocabulary import token_vocabulary
from lightsae.evaluation import NameChecks, check_names
from lightsae.interventions.examples.dated_world.training import word_tokenizer
from lightsae.sae import SparseAutoencoder, TopK

transformers = pytest.importorskip("transformers")

WORDS = [f"w{number:02d}" for number in range(29)]
TEXTS, LENGTH, D = 160, 6, 48


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    """Tied embeddings of a model whose blocks do little: a text ends in what is likely next.

    The autoencoder of the last block has a latent for each token, along its embedding.
    """
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=D, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        torch.nn.init.orthogonal_(model.model.embed_tokens.weight[1:], gain=2)
        for name, weight in model.model.layers.named_parameters():
            if weight.ndim == 2:
                weight.mul_(0.01 if "down" in name or "o_proj" in name else 1)
    vocabulary = token_vocabulary(model, word_tokenizer(WORDS))
    sae = SparseAutoencoder(D, len(vocabulary), TopK(3), normalization="none")
    with torch.no_grad():
        unit = torch.nn.functional.normalize(vocabulary.vectors, dim=1)
        sae.W_enc.copy_(unit), sae.W_dec.copy_(unit)
    return SimpleNamespace(model=model, sae=sae, vocabulary=vocabulary)


def texts(pad: int = 0) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Texts of random words in two batches, padded on the left, and which tokens each has."""
    ids = torch.randint(3, 32, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(ids, (pad, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (pad, 0))
    place = (mask.cumsum(1) - 1).clamp(min=0)
    names = ("input_ids", "attention_mask", "position_ids")
    batches = [
        dict(zip(names, parts, strict=True))
        for parts in zip(*(each.split(100) for each in (padded, mask, place)), strict=True)
    ]
    has = torch.nn.functional.one_hot(ids, 32).any(dim=1)[:, 1:]  # padding is no word
    return batches, has


def checked(case: SimpleNamespace, pad: int = 0) -> NameChecks:
    names = name_latents(case.sae.W_dec.detach(), case.vocabulary)
    assert names.alignment_rate == 1 and names.names[2:] == WORDS
    batches, has = texts(pad)
    return check_names(
        case.model, "model.layers.0", case.sae, batches, names, has,
        latents=range(2, 31, 4), logits=lambda out: out.logits[:, -1, 1:], n_random=10,
    )  # fmt: skip


def test_latents_along_the_tokens_detect_and_control_them(case: SimpleNamespace) -> None:
    found = checked(case)
    assert [check.name for check in found.checks] == WORDS[::4]
    assert min(check.auroc for check in found.checks) > 0.9
    assert max(check.change for check in found.checks) < 0
    assert found.verdict.startswith("the names hold"), found.verdict


def test_padding_changes_nothing(case: SimpleNamespace) -> None:
    with torch.no_grad():  # padding that would fire latent 2 if it were looked at
        case.model.model.embed_tokens.weight[0] = 3 * case.vocabulary.vectors[2]
    plain, padded = checked(case), checked(case, pad=3)
    for one, other in zip(plain.checks, padded.checks, strict=True):
        assert (one.name, one.firings) == (other.name, other.firings)
        for name in ("auroc", "precision", "change", "control_change", "controller_q"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-4), name
