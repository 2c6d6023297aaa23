"""`ScalingResult`: how the loss scales, as scaling.json."""

import json
from pathlib import Path
from typing import NamedTuple

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.planning.scaling.law_types import AtK, Budget, Curve, HeldOut, KLaw, Law
from lightsae.planning.scaling.laws import FORMS
from lightsae.planning.scaling.runs import LeftOut, Run
from lightsae.typed_json import plain, read_json, typed

FORMAT = 1
JSON = "scaling.json"


class ScalingResult(NamedTuple):
    """Scaling laws of some runs; see `fit_scaling`.

    Attributes:
        d_in: Width of the activations.
        decoded: Latents decoded per latent of k, for `flops_per_token`.
        tokens: Training rows of the runs that `law`, `sizes` and `compute` are fitted to.
        runs: All runs that a law was fitted to.
        left_out: The others.
        notes: What the data do not determine, a line each.
        law: Loss over n and k; where there is one k, over n.
        at_k: What `law` says at each k.
        sizes: Loss over n at each k, fitted to the runs of that k alone.
        compute: Loss over operations at each k, at these tokens.
        budget_laws: Loss over n and tokens at each k that was trained for several lengths.
        held_out: The largest n, predicted from the others; empty where they determine no law.
        budgets: What budgets are best spent on.
        curves: `law` drawn over n, for the figure.

    Example:
        >>> import tempfile
        >>> from lightsae.planning.scaling import Run, fit_scaling
        >>> runs = [Run(str(n), n, 4, 0, 1000, n**-0.5 + 0.1) for n in (32, 64, 128, 256, 512)]
        >>> result = fit_scaling(runs, d_in=64, draws=20)
        >>> round(result.law.parameters["beta_n"].value, 3)
        -0.5
        >>> folder = tempfile.mkdtemp()
        >>> result.save(folder)
        >>> ScalingResult.load(folder) == result
        True
    """

    d_in: int
    decoded: int
    tokens: int
    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    law: Law
    at_k: tuple[AtK, ...]
    sizes: tuple[KLaw, ...]
    compute: tuple[KLaw, ...]
    budget_laws: tuple[KLaw, ...]
    held_out: tuple[HeldOut, ...]
    budgets: tuple[Budget, ...]
    curves: tuple[Curve, ...]

    def save(self, folder: str | Path) -> None:
        """Write scaling.json.

        Args:
            folder: Made if it is not there.

        Raises:
            LightsaeError: If it cannot be written.
        """
        content = {"format": FORMAT, **plain(self)}
        write_whole(Path(folder) / JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @staticmethod
    def load(folder: str | Path) -> "ScalingResult":
        """Read what `save` wrote.

        Args:
            folder: With scaling.json.

        Raises:
            LightsaeError: If the file is missing or not what `save` writes; names the key.
        """
        path = Path(folder) / JSON
        found = read_json(path, "scaling", FORMAT)
        result = typed(ScalingResult, found, str(path))
        laws = [result.law, *(each.law for each in (*result.sizes, *result.compute,
                                                    *result.budget_laws))]  # fmt: skip
        for law in laws:
            form = FORMS.get(law.form)
            if form is None or tuple(law.parameters) != form.parameters:
                raise LightsaeError(f"{path}: {law.form!r} is no law with {list(law.parameters)}")
        for curve in result.curves:
            if len(curve.d_sae) != len(curve.loss):
                raise LightsaeError(f"{path}: curves of k = {curve.k} have places without a loss")
        return result
