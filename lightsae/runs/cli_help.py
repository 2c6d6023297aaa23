"""The text of `--help`: this package's options in full, the most used of Lightning's."""

from argparse import SUPPRESS

from lightning.pytorch.cli import LightningArgumentParser

_SHOWN = (
    "accelerator", "devices", "precision", "max_epochs", "max_steps", "accumulate_grad_batches",
    "gradient_clip_val", "log_every_n_steps", "enable_progress_bar", "fast_dev_run",
)  # fmt: skip
_OWN = {
    "ckpt_path": "Checkpoint to take instead of the run's own.",
    "weights_only": "Of no effect: checkpoints are always read without running anything in them.",
    "config": "YAML with the keys seed_everything, trainer, model and data.",
    "seed_everything": "Seed of the weights that training starts from.",
}
_TITLES = {
    "trainer": (
        "lightning.pytorch.Trainer, the most used of its options",
        "the others too are given as --trainer.NAME; --print_config shows them all",
    ),
    "model": ("model", "--model.help SAEModule lists its options"),
    "data": ("data", "--data.help ActivationDataModule lists its options"),
}


def shorten(parser: LightningArgumentParser, word: str) -> None:
    """Let the help of a command fit on a screen.

    Args:
        parser: The parser of the command; what it parses stays the same.
        word: The command.
    """
    hidden = []
    parser.usage = f"lightsae {word} --config FILE [--run_dir DIR] [options]"
    for action in parser._actions:
        key = action.dest
        if key.startswith("trainer.") and key.removeprefix("trainer.") not in _SHOWN:
            hidden.append(action)
        elif isinstance(action.help, str) and action.help is not SUPPRESS:
            action.help = _OWN.get(key, action.help.split("\n\n")[0].partition(". ")[0])
    for name, (title, description) in {**_TITLES, word: ("checkpoint", None)}.items():
        group = (parser.groups or {})[name]
        group.title, group.description = title, description
    whole = parser.format_help

    def format_help() -> str:
        """The help without what is hidden; an action that is suppressed for good is not dumped."""
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = SUPPRESS
        try:
            return whole()
        finally:
            for action, text in zip(hidden, texts, strict=True):
                action.help = text

    parser.format_help = format_help  # type: ignore[method-assign, assignment]
