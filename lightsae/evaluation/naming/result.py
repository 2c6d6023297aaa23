"""`NameChecks`: what a test of names found, its verdicts, and its file name_checks.json."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.interop.files.safe_files import read_json
from lightsae.typed_json import plain, typed

FILE = "name_checks.json"
FORMAT = 1
BOTH, DETECTOR, CONTROLLER, NEITHER, UNTESTED = (
    "detector and controller", "detector", "controller", "neither", "untested",
)  # fmt: skip


class NameCheck(NamedTuple):
    """One latent and its name.

    Attributes:
        latent: Which.
        name: What it is called.
        firings: Samples where it fires.
        base_rate: Share of samples that carry the word.
        auroc: Of its largest activation in a sample for whether that carries the word; NaN where
            all do, or none.
        precision: Share that carries it of the samples that activate the latent most.
        detector_q: Of the AUROC, adjusted by Benjamini and Hochberg over the latents that can be
            tested; NaN for the others.
        change: Mean change of the word's logit less the mean over all words under ablation, over
            the samples where the latent fires; NaN if it never does.
        control_change: Mean of that of random latents of similar firing rate.
        control_sd: Its standard deviation between them.
        controller_q: That the change is below that of random latents, adjusted likewise.
    """

    latent: int
    name: str
    firings: int
    base_rate: float
    auroc: float
    precision: float
    detector_q: float
    change: float
    control_change: float
    control_sd: float
    controller_q: float

    def verdict(self, alpha: float) -> str:
        """What of the name holds, by a rule.

        A detector has an AUROC above .5 and a q-value of at most alpha; a controller's ablation
        lowers its word's logit more than other words' and, with a q-value of at most alpha, more
        than random latents do. Without either q-value it is untested.

        Args:
            alpha: Rate of false discoveries.
        """
        if math.isnan(self.detector_q) and math.isnan(self.controller_q):
            return UNTESTED
        detects = self.auroc > 0.5 and self.detector_q <= alpha
        controls = self.change < 0 and self.controller_q <= alpha
        if detects and controls:
            return BOTH
        return DETECTOR if detects else CONTROLLER if controls else NEITHER


@dataclass(frozen=True, eq=False)
class NameChecks:
    """All latents that were tested; see `check_names`.

    Attributes:
        checks: A latent each.
        layer: Name of the layer.
        samples: Number of samples.
        top: Samples that `precision` is of.
        controls: Random latents beside each.
        alpha: Rate of false discoveries.

    Example:
        >>> import tempfile
        >>> check = NameCheck(3, "cat", 20, 0.1, 0.9, 0.8, 0.001, -0.4, 0.0, 0.1, 0.01)
        >>> found = NameChecks([check], "blocks.1", samples=200, top=10, controls=20, alpha=0.05)
        >>> found.verdict
        'the names hold: 1 of 1 latents detect and control what they are called'
        >>> folder = tempfile.mkdtemp()
        >>> found.save(folder)
        >>> NameChecks.load(folder).verdicts
        ['detector and controller']
    """

    checks: list[NameCheck]
    layer: str
    samples: int
    top: int
    controls: int
    alpha: float

    @property
    def verdicts(self) -> list[str]:
        """Of each latent."""
        return [check.verdict(self.alpha) for check in self.checks]

    @property
    def verdict(self) -> str:
        """Of all, a sentence: names hold if at least half of those that can be tested do both."""
        count = Counter(self.verdicts)
        tested = len(self.checks) - count[UNTESTED]
        both, detect = count[BOTH], count[BOTH] + count[DETECTOR]
        if not tested:
            return "no name can be tested: no latent fires, or no word tells samples apart"
        if 2 * both >= tested:
            told = f"{both} of {tested} latents detect and control what they are called"
            return f"the names hold: {told}"
        counts = f"{detect} of {tested} latents detect what they are called, {both} also control it"
        if 2 * detect >= tested:
            return f"the names tell what latents fire on, not what they do: {counts}"
        return f"the names do not hold: {counts}"

    def save(self, folder: str | Path) -> None:
        """Write name_checks.json, replaced as a whole.

        Args:
            folder: Where; made if it is not there.

        Raises:
            LightsaeError: If it cannot be written.
        """
        settings = {name: getattr(self, name) for name in _SETTINGS}
        content = {
            "format": FORMAT, **settings, "verdict": self.verdict,
            "checks": plain(self.checks),
        }  # fmt: skip
        write_whole(Path(folder) / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The folder with name_checks.json.

        Raises:
            LightsaeError: If the file is missing or is not what `save` writes.
        """
        path = Path(folder) / FILE
        found = read_json(path)
        if found.get("format") != FORMAT or not isinstance(found.get("checks"), list):
            raise LightsaeError(f"{path} is no test of names of format {FORMAT}")
        for name, kind in _SETTINGS.items():
            if type(found.get(name)) is not kind:
                raise LightsaeError(f"{path}: {name} is missing or no {kind.__name__}")
        checks = typed(tuple[NameCheck, ...], found["checks"], f"{path}: checks")
        return cls(list(checks), **{name: found[name] for name in _SETTINGS})


_SETTINGS: dict[str, type] = {
    "layer": str, "samples": int, "top": int, "controls": int, "alpha": float,
}  # fmt: skip
