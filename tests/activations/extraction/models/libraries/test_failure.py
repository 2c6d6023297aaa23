from pickle import UnpicklingError

import pytest

from lightsae.activations.extraction.models.libraries.failure import not_built

HINT = "; model.weights FILE and model.pretrained false need no download"


@pytest.mark.parametrize(
    ("error", "fetches", "hint"),
    [
        (OSError("no network"), True, HINT),
        (RuntimeError("Failed to download file"), True, HINT),
        (OSError("no network"), False, ""),
        (TypeError("unexpected keyword argument"), True, ""),
    ],
)
def test_a_download_that_fails_says_what_needs_none(
    error: Exception, fetches: bool, hint: str
) -> None:
    says = f"model.name a: cannot be built: {type(error).__name__}: {error}{hint}"
    assert str(not_built("a", error, fetches)) == says


def test_weights_that_would_run_code_get_no_advice_to_let_them() -> None:
    said = str(not_built("a", UnpicklingError("Re-running with weights_only set to False"), True))
    assert said.startswith("model.name a: cannot be built: its weights: expected plain tensors: ")
    assert "weights_only" not in said
