"""k of a selection rule in a configuration: its own argument, or so many latents of every bank."""

from collections.abc import Mapping
from typing import Any

from lightsae.errors import LightsaeError

_DEFAULT_K = 32


def k_of(selection: Mapping[str, Any], d_sae: int) -> int:
    """Latents per row of a rule.

    Args:
        selection: class_path and init_args, or empty for the default.
        d_sae: Size of the dictionary.

    Example:
        >>> k_of({"class_path": "lightsae.sae.TopK", "init_args": {"k": 8}}, 64)
        8
        >>> banks = {"class_path": "lightsae.sae.BankTopK", "init_args": {"keep": 1, "bank": 16}}
        >>> k_of(banks, 64)
        4
    """
    given = selection.get("init_args") or {}
    if _has_banks(selection):
        return int(given["keep"] * d_sae // given["bank"])
    return int(given.get("k", _DEFAULT_K))


def with_k(selection: Mapping[str, Any], k: int, d_sae: int) -> dict[str, Any]:
    """The same rule with another k; of banks, which keep their size, more or fewer latents stay.

    Args:
        selection: class_path and init_args.
        k: Latents per row.
        d_sae: Size of the dictionary.

    Raises:
        LightsaeError: If banks would have to keep a fraction of a latent.

    Example:
        >>> banks = {"class_path": "lightsae.sae.BankTopK", "init_args": {"keep": 1, "bank": 16}}
        >>> with_k(banks, 8, 64)["init_args"]
        {'keep': 2, 'bank': 16}
    """
    given = dict(selection.get("init_args") or {})
    if not _has_banks(selection):
        return {**selection, "init_args": {**given, "k": k}}
    bank = given["bank"]
    # A bank that does not divide d_sae is refused, by its name, where the rule is built.
    if d_sae % bank == 0:
        keep, rest = divmod(k * bank, d_sae)
        if rest or not keep:
            raise LightsaeError(
                f"k = {k} of d_sae = {d_sae} are {k * bank / d_sae:g} of every bank of {bank}, "
                "expected a whole number"
            )
        given["keep"] = keep
    return {**selection, "init_args": given}


def _has_banks(selection: Mapping[str, Any]) -> bool:
    return str(selection.get("class_path")).rpartition(".")[2] == "BankTopK"
