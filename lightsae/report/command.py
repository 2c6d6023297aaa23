"""`lightsae report`: run folders compared on one page."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveFloat, PositiveInt

from lightsae.errors import LightsaeError
from lightsae.files import expanded

_ABOUT = (
    "Write one HTML file that compares evaluated runs and shows what their latents fire on. It "
    "needs no network."
)


def report(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae report`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `build_report` raises.
    """
    parser = ArgumentParser(prog="lightsae report", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "runs", type=str, nargs="+",
        help="Run folders that `lightsae test` evaluated, or folders of them, such as a sweep; "
        "folders of `lightsae steer` and `lightsae compare`.",
    )  # fmt: skip
    parser.add_argument("--out", type=str, default="report.html", help="The file to write.")
    parser.add_argument(
        "--images", type=str | None, default=None,
        help="Folder, array file, tars or dataset class of the images, if they are not where the "
        "shards were made of them.",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", type=str | None, default=None,
        help="Run that the others are compared with. (default: the first without a regularizer)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=PositiveInt, default=10, help="Strongest images of each latent."
    )
    parser.add_argument(
        "--max_mb", type=PositiveFloat, default=24.0,
        help="Megabytes of the file at most; thumbnails are made as large as fits.",
    )  # fmt: skip
    given = parser.parse_args(list(words))
    # What follows needs torch; the options and their help do not.
    from lightsae.report.page.build import ReportOptions, build_report

    out = Path(expanded(given.out))
    if out.is_dir():
        raise LightsaeError(f"--out {out} is a folder, expected the name of an HTML file")
    build_report(
        ReportOptions(
            runs=[Path(expanded(run)) for run in given.runs],
            out=out,
            images=None if given.images is None else expanded(given.images),
            baseline=None if given.baseline is None else Path(expanded(given.baseline)),
            top=given.top,
            max_mb=given.max_mb,
        )
    )
