"""Text embeddings of concepts as directions."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models import ModelOptions
from lightsae.dictionaries.naming.concept_vocabulary import concept_vocabulary, pulled_back
from lightsae.dictionaries.naming.text_towers import TextTower, load_text_tower
from lightsae.dictionaries.naming.token_vocabulary import load_token_vocabulary
from lightsae.errors import LightsaeError

TEMPLATES = ["a photo of a {}.", "{} at night"]


def embed(texts: Sequence[str]) -> Tensor:
    """A random vector for each text, of any norm."""
    vectors = [
        torch.randn(6, generator=torch.Generator().manual_seed(sum(text.encode())))
        for text in texts
    ]
    return torch.stack(vectors)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_mean_over_templates_of_unit_vectors_made_unit_again(batch_size: int) -> None:
    found = concept_vocabulary(
        ["cat", "hot dog", "{}"], TextTower(embed), TEMPLATES, batch_size=batch_size
    )
    for name, vector in zip(found.names, found.vectors, strict=True):
        texts = [f"a photo of a {name}.", f"{name} at night"]
        units = [each / each.norm() for each in embed(texts)]
        mean = sum(units) / 2
        torch.testing.assert_close(vector, mean / mean.norm())
    assert found.about == {"templates": TEMPLATES, "space": "joint", "subtract_mean": False}


def test_the_mean_of_all_concepts_can_be_subtracted() -> None:
    names = ["cat", "dog", "oak"]
    plain, centred = (
        concept_vocabulary(names, TextTower(embed), subtract_mean=each).vectors
        for each in (False, True)
    )
    torch.testing.assert_close(centred, plain - plain.mean(dim=0))


def test_a_direction_pulled_back_tells_what_moving_along_it_does() -> None:
    e, P, d = (torch.randn(*shape, dtype=torch.float64) for shape in ((4,), (4, 7), (7,)))
    v = pulled_back(e[None], P)[0]
    torch.testing.assert_close(v @ d, (P @ d) @ e)


def test_a_layer_norm_is_pulled_back_as_its_linear_part() -> None:
    e, P, d = (torch.randn(*shape, dtype=torch.float64) for shape in ((4,), (4, 7), (7,)))
    norm = nn.LayerNorm(7).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    v = pulled_back(e[None], P, norm)[0]
    gamma = norm.weight.detach()
    torch.testing.assert_close(v @ d, (P @ (gamma * (d - d.mean()))) @ e)
    torch.testing.assert_close(v.sum(), torch.zeros((), dtype=torch.float64))


def test_with_orthonormal_rows_it_is_the_pseudo_inverse() -> None:
    P = torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64)).Q.T
    e = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(pulled_back(e, P), e @ torch.linalg.pinv(P).T)


def test_concepts_before_the_projection_are_pulled_back() -> None:
    P, norm = torch.randn(6, 8), nn.LayerNorm(8)
    tower = TextTower(embed, P, norm)
    joint = concept_vocabulary(["cat", "dog"], tower).vectors
    at = {
        space: concept_vocabulary(["cat", "dog"], tower, space=space).vectors  # type: ignore[arg-type]
        for space in ("projection_input", "norm_input")
    }
    torch.testing.assert_close(at["projection_input"], joint @ P)
    torch.testing.assert_close(at["norm_input"], pulled_back(joint, P, norm))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"templates": ["a photo"]}, "'a photo' has not one {} for the name"),
        ({"templates": ["{} and {}"]}, "has not one {}"),
        ({"templates": []}, r"templates is \[\], expected a list"),
        ({"templates": "{}"}, "expected a list of one or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"space": "norm_input"}, "no projection behind a LayerNorm"),
        ({"space": "layer"}, "space is 'layer', expected joint"),
    ],
)
def test_what_cannot_be_done_is_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        concept_vocabulary(["cat"], TextTower(embed), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vectors", "projection", "norm", "told"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), None, r"vectors are \[2, 3\] and the projection"),
        (torch.ones(2, 4), torch.ones(4, 5), nn.LayerNorm(4), r"the LayerNorm is of \[4\]"),
    ],
)
def test_sizes_that_disagree_are_refused(
    vectors: Tensor, projection: Tensor, norm: nn.LayerNorm | None, told: str
) -> None:
    with pytest.raises(LightsaeError, match=told):
        pulled_back(vectors, projection, norm)


@pytest.mark.parametrize("load", [load_text_tower, load_token_vocabulary])
@pytest.mark.parametrize("options", [{"name": "vit_small", "library": "timm"}, {"module": "a.B"}])
def test_libraries_without_text_are_refused(load: object, options: dict[str, str]) -> None:
    with pytest.raises(LightsaeError, match=r"model is .*expected .*name"):
        load(ModelOptions(**options))  # type: ignore[operator,arg-type]


def test_a_tokenizer_that_knows_no_word_is_noticed() -> None:
    tower = TextTower(lambda texts: torch.ones(len(texts), 4))
    with pytest.raises(LightsaeError, match="embeds all concepts alike"):
        concept_vocabulary(["cat", "dog"], tower)
    assert len(concept_vocabulary(["cat"], tower)) == 1
