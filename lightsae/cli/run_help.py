"""The `--help` of fit, validate, test and predict as fixed text, because generating it is slow."""

_ABOUT = {
    "fit": "Train an autoencoder; the same command again goes on where it stopped.",
    "validate": "Metrics of a trained run on the validation split.\n"
    "Without --config the run's own config.yaml is taken.",
    "test": "Metrics of a trained run on the test split; writes evaluation.json and a table.\n"
    "Without --config the run's own config.yaml is taken.",
    "predict": "Write the codes of all rows as HDF5.\n"
    "Without --config the run's own config.yaml is taken.",
    "sweep": "Train a grid of autoencoders over the same batches and choose lambda.\n"
    "The same command again goes on where it stopped.",
}
_PAGE = """\
usage: lightsae {word} {needs} [options]

{about}

options:
  --config FILE           YAML with the keys seed_everything, trainer, model and data; given
                          again, later files change earlier ones.
  --run_dir DIR           Folder of the run; the same command again goes on where it stopped.
                          (default: trainer.default_root_dir, or runs/default)
  --checkpoint_every N    Optimizer steps between two checkpoints; one is also written after each
                          epoch. (default: 500)
  --seed_everything SEED  Seed of the weights that training starts from. (default: 0)
  --print_config          Print the configuration, with every default, and exit.
  --help                  Print this and exit.

lightning.pytorch.Trainer, the most used of its options:
  the others too are given as --trainer.NAME; --print_config shows them all

  --trainer.accelerator NAME            auto, cpu, gpu (default: auto)
  --trainer.devices N                   Number of devices, or a list of them. (default: auto)
  --trainer.precision NAME              32-true, bf16-mixed, 16-mixed. (default: 32-true)
  --trainer.max_epochs N                Passes over the training split. (default: 1000)
  --trainer.max_steps N                 Optimizer steps; -1 for no limit. (default: -1)
  --trainer.accumulate_grad_batches N   Batches per optimizer step. (default: 1)
  --trainer.gradient_clip_val NORM      Norm to which gradients are clipped. (default: null)
  --trainer.log_every_n_steps N         Steps between two lines of metrics. (default: 50)
  --trainer.enable_progress_bar BOOL    Show a progress bar. (default: true)
  --trainer.fast_dev_run N              Run N batches to see whether all works; write nothing.
                                        (default: false)

model:
  --model.help SAEModule lists its options

  --model CLASS           Class of the module: SAEModule, or the path of one of your own. Its
                          options are given as --model.NAME.
  --model.help CLASS      List the options of a class and exit.

data:
  --data.help ActivationDataModule lists its options

  --data CLASS            Class of the data module: ActivationDataModule,
                          OnlineActivationDataModule, or the path of one of your own. Its options
                          are given as --data.NAME.
  --data.help CLASS       List the options of a class and exit.

evaluation: what `lightsae test` measures, see docs/evaluation.md
  --evaluation.embeddings LIST  What monosemanticity is measured in: folders of shards, LIBRARY:NAME
                                of a model, own_input. (default: ['own_input'])
  --evaluation.embeddings+ ONE  One more of them. (default: ['own_input'])
  --evaluation.embeddings.help  List the options of one of them and exit.
  --evaluation.images CONFIG    Images of the shards, for models among these. (default: null)
  --evaluation.images.help      List their options and exit.
  --evaluation.probes BOOL      Fit linear probes to labelled training images. (default: true)
  --evaluation.probe_rows N     Training images they are fitted to at most. (default: 20000)
  --evaluation.pooling NAME     How an image's tokens become one activation: max or mean.
                                (default: max)
  --evaluation.rank_rows N      Rows of the rank profile and of k-robustness at most.
                                (default: 2048)
  --evaluation.top_images N     Strongest images of each latent that are kept. (default: 16)
  --evaluation CONFIG           File with these options.

checkpoint:
  --ckpt_path FILE        Checkpoint to take instead of the run's own.
  --weights_only BOOL     Of no effect: checkpoints are always read without running anything in
                          them.
"""
_VERBOSE = "  --verbose BOOL          Print the metrics. (default: true)\n"
_MORE = {
    "sweep": """
sweep, the lists of the grid; as YAML they are the section `sweep:` of the file:
  --sweep.k LIST           Latents per row.
  --sweep.d_sae LIST       Sizes of the dictionary.
  --sweep.regularizer LIST Class names or paths, or class_path and init_args.
  --sweep.weight LIST      lambda, for every regularizer.
  --sweep.lr LIST          Learning rates.
  --sweep.seed LIST        Seeds of the weights; the data have their own, which all share.
  --sweep.at_once N        Autoencoders of one shape that train at the same time. (default: 16)
  --sweep.find_lambda BOOL Find the largest admissible lambda by short runs. (default: false)
  --sweep.find_share X     Share of the epochs or steps that these take. (default: 0.2)
""",
    "validate": _VERBOSE,
    "test": _VERBOSE,
    "predict": "  --return_predictions BOOL  Of no effect: codes go to the run's folder, not into "
    "memory.\n",
}


def run_help(word: str) -> str:
    """The help of a command over a run folder.

    Args:
        word: fit, validate, test, predict or sweep.

    Example:
        >>> print(run_help("test").splitlines()[0])
        usage: lightsae test --run_dir DIR [--config FILE] [options]
    """
    trained = word in ("validate", "test", "predict")
    needs = "--run_dir DIR [--config FILE]" if trained else "--config FILE [--run_dir DIR]"
    return _PAGE.format(word=word, needs=needs, about=_ABOUT[word]) + _MORE.get(word, "")
