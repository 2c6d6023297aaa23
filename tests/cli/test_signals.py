"""What a signal does to a command: its exit code, and one line that says what is kept."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.training import SAEModule, read_checkpoint

from ..training.helpers import SIZES, command, environment, write_config, write_shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that nobody waits for."""
    folder = tmp_path_factory.mktemp("long")
    shards = write_shards(folder / "shards", rows=2000)
    return write_config(
        folder / "config.yaml",
        shards,
        trainer__max_epochs=100_000,
        data__init_args__buffer_rows=500,
    )


def stop(number: int, run: Path, *words: object) -> tuple[int, list[str]]:
    """Send a signal to a command that has logged 20 more steps; its exit code and what it said."""
    metrics = run / "metrics.jsonl"
    enough = _lines(metrics) + 20
    with subprocess.Popen(
        command("fit", "--run_dir", run, *words),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_answer_interrupts,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if _lines(metrics) >= enough:
                    break
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    return process.returncode, said.splitlines()


def _answer_interrupts() -> None:
    # A shell starts what runs in its background with the signal ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_sigterm_keeps_the_step_it_came_in(long: Path, tmp_path: Path) -> None:
    status, said = stop(signal.SIGTERM, tmp_path, "--config", long)
    assert status == 143
    assert said[0].endswith(f"no checkpoint yet, starting from the beginning {SIZES}")
    step = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"]
    assert said[1:] == [f"{tmp_path}: stopped after step {step}; the same command goes on"]
    status, said = stop(signal.SIGTERM, tmp_path, "--config", long)
    assert status == 143
    assert said[0] == f"{tmp_path}: going on after step {step} {SIZES}"


def test_two_processes_stop_together_and_one_speaks(long: Path, tmp_path: Path) -> None:
    words = ("--config", long, "--trainer.devices", 2, "--checkpoint_every", 7)
    found, said = stop(signal.SIGTERM, tmp_path, *words)
    assert found == 143
    assert len(said) == 2
    assert re.fullmatch(r".*: stopped after step \d+; the same command goes on.*", said[1])


def test_control_c_before_a_checkpoint_says_that_there_is_none(long: Path, tmp_path: Path) -> None:
    rare = ("--checkpoint_every", 10**6, "--data.init_args.batch_size", 1)
    status, said = stop(signal.SIGINT, tmp_path, "--config", long, *rare)
    assert status == 130
    assert len(said) == 2
    assert re.fullmatch(r".*: stopped after step \d+, before a checkpoint was written", said[1])
    assert not (tmp_path / "checkpoints").exists()


def test_control_c_names_the_step_of_the_checkpoint(long: Path, tmp_path: Path) -> None:
    status, said = stop(signal.SIGINT, tmp_path, "--config", long, "--checkpoint_every", 7)
    assert status == 130
    step = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"]
    assert len(said) == 2
    found = re.fullmatch(
        r".*: stopped after step (\d+); the same command goes on( after step (\d+))?", said[1]
    )
    assert found is not None
    assert int(found[3] or found[1]) == step


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
@pytest.mark.parametrize("word", ["validate", "predict"])
def test_an_evaluation_stops_too(
    word: str,
    number: int,
    status: int,
    run: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    step = "predict_step" if word == "predict" else "validation_step"
    name = f"lightsae.training.module.SAEModule.{step}"
    original = SAEModule.predict_step if word == "predict" else SAEModule.validation_step

    def interrupted(module: SAEModule, batch: Any, batch_idx: int) -> Any:
        os.kill(os.getpid(), number)
        return original(module, batch, batch_idx)

    monkeypatch.setattr(name, interrupted)
    with pytest.raises(SystemExit) as caught:
        main([word, "--config", str(config), "--run_dir", str(run)])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
    assert caught.value.code == status
    assert capfd.readouterr().err.splitlines()[-1] == f"{word}: stopped"
    assert not list(run.glob("codes/*.h5"))


@pytest.mark.parametrize("word", ["fit", "extract", "demo"])
def test_control_c_outside_of_training_is_one_line_too(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightsae.cli.program._command", lambda _: interrupted)
    assert main([word]) == 130
    again = "; the same command goes on" if word in ("extract", "demo") else ""
    assert capsys.readouterr().err == f"lightsae {word}: stopped{again}\n"


class _Dropping:
    """Takes a signal where Python forgets what is raised."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_that_comes_in_a_destructor_is_not_lost(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        with contextlib.suppress(KeyError):
            {}[_Dropping(number)]
        time.sleep(seconds)

    monkeypatch.setattr("lightsae.cli.program._function", lambda _: interrupted)
    assert main(["demo", "--seconds", "30"]) == status
    assert capsys.readouterr().err == "lightsae demo: stopped; the same command goes on\n"


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(signal.SIGTERM, 143, 0), (signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)],
)
def test_an_extraction_says_that_it_goes_on(
    number: int, status: int, workers: int, tmp_path: Path
) -> None:
    stand_ins = "tests.activations.stand_ins"
    words = ["--model.module", f"{stand_ins}.TinyNet", "--layer", "tokens", "--data.dataset",
             f"{stand_ins}.Noise", "--data.arguments", '{"count": 100000}', "--batch_size", "1",
             "--rows_per_shard", "50", "--out", str(tmp_path / "out"),
             "--workers", str(workers)]  # fmt: skip
    process = subprocess.Popen(
        command("extract", *words), env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "out" / "manifest.json").exists():
            time.sleep(0.01)
        # A scheduler tells every process of a job, in any order.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children if workers else []:
            os.kill(int(child), number)
        time.sleep(0.3 if workers else 0)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status
    assert said.splitlines()[-1] == "lightsae extract: stopped; the same command goes on"


IMPORTED = {
    "raised": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "turned into another error": """
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep(9)
except BaseException as error:
    raise ImportError("half imported") from error
""",
}
STARTS = {
    "python -m": ["-m", "lightsae"],
    "lightsae": ["-c", "import sys; from lightsae.cli import main; sys.exit(main())"],
    "lightning": ["-c", "import sys; from lightsae.cli import lightning_main as m; sys.exit(m())"],
}


@pytest.mark.parametrize("imported", IMPORTED.values(), ids=IMPORTED)
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_control_c_during_imports_is_one_line(
    start: list[str], imported: str, tmp_path: Path
) -> None:

    (tmp_path / "torch.py").write_text("import os, signal, time\n" + imported)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.run(
        [sys.executable, *start, "fit", "--config", "c.yaml"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        preexec_fn=_answer_interrupts,
    )
    assert process.returncode == 130
    assert process.stderr == "lightsae fit: stopped\n"


def test_an_import_that_fails_of_itself_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not this one')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.run(
        [sys.executable, "-m", "lightsae", "fit"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr.endswith("ImportError: not this one\n")
