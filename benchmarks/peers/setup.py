"""Make one virtual environment per peer library, all with the torch of this environment.

    python benchmarks/peers/setup.py [--folder .venv-peers] [NAME ...]

Each environment sees this interpreter's site-packages behind its own (torch alone is several
gigabytes) and torch is held at this version; whatever else a peer wants goes into its own folder.
"""

import argparse
import importlib.metadata
import subprocess
import sysconfig
import venv
from pathlib import Path

FOLDER = Path(".venv-peers")

REQUIREMENTS = {
    "sparsify": ("eai-sparsify==1.3.3",),
    "sae_lens": ("sae-lens==6.54.12",),
    "dictionary_learning": ("dictionary-learning==0.1.0",),
    # It calls matplotlib.cm.get_cmap, which matplotlib 3.9 removed.
    "overcomplete": ("overcomplete==0.3.0", "matplotlib<3.9"),
    # For shards.py.
    "saev": ("saev==0.1.0",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REQUIREMENTS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the environments go")
    options = parser.parse_args()
    unknown = set(options.names) - set(REQUIREMENTS)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(REQUIREMENTS)}")
    for name in options.names or REQUIREMENTS:
        print(f"{name}: {' '.join(REQUIREMENTS[name])} in {options.folder / name}", flush=True)
        install(options.folder / name, REQUIREMENTS[name])


def install(environment: Path, requirements: tuple[str, ...]) -> None:
    """Make the environment and install the requirements into it."""
    venv.create(environment, with_pip=True, clear=True)
    own = Path(_python(environment, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (own / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    constraints = environment / "constraints.txt"
    constraints.write_text(f"torch=={importlib.metadata.version('torch')}\n")
    _python(environment, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--constraint", str(constraints), *requirements)  # fmt: skip


def _python(environment: Path, *arguments: str) -> str:
    command = [str(environment / "bin" / "python"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
