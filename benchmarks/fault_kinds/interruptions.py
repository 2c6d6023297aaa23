"""Faults while a command writes: it is killed, joined by another, or the disk is full."""

import os
import shutil
import signal
import threading
import time
from contextlib import suppress

from fault_kinds.outcomes import RESUMED
from fault_kinds.processes import run
from fault_kinds.undisturbed import Bench, autoencoder, autoencoders


def killed(bench: Bench) -> str:
    child = run(bench.words(bench.fresh()))
    bench.moment()
    child.send(signal.SIGKILL)
    child.wait()
    return bench.afterwards(bench.fresh())


def killed_and_clock_skewed(bench: Bench) -> str:
    years = lambda: bench.chance.uniform(-10, 10) * 3.15e7  # noqa: E731
    child = run(bench.words(bench.fresh()), clock=years())
    bench.moment()
    child.send(signal.SIGKILL)
    child.wait()
    for path in bench.fresh().glob("*"):
        when = time.time() + years()
        os.utime(path, (when, when))
    run(bench.words(bench.fresh()), clock=years()).wait()
    return bench.afterwards(bench.fresh())


def killed_of_two(bench: Bench) -> str:
    """As torchrun does, the other one is asked to end, and killed if it does not listen."""
    children = bench.start(bench.fresh(), 2)
    bench.moment(2)
    bench.chance.shuffle(children)
    children[0].send(signal.SIGKILL)
    children[1].send(signal.SIGTERM)
    killer = threading.Timer(5, children[1].send, [signal.SIGKILL])
    killer.start()
    for child in children:
        child.wait()
    killer.cancel()
    return bench.afterwards(bench.fresh(), 2)


def killed_training(bench: Bench) -> str:
    words = bench.fit_words(bench.fresh())
    for _ in range(3):
        child = run(words)
        time.sleep(bench.chance.uniform(0, bench.trained.seconds))
        child.send(signal.SIGKILL)
        child.wait()
    code, text = run(words).wait()
    same = not code and autoencoder(bench.fresh()) == bench.trained.weights
    shutil.rmtree(bench.fresh())
    return RESUMED if same else f"differs after resuming: {text}"


def killed_sweep(bench: Bench) -> str:
    words = bench.sweep_words(bench.fresh())
    for _ in range(5):
        child = run(words)
        time.sleep(bench.chance.uniform(0, bench.swept.seconds))
        child.send(signal.SIGKILL)
        child.wait()
    code, text = run(words).wait()
    same = not code and autoencoders(bench.fresh()) == bench.swept.weights
    shutil.rmtree(bench.fresh())
    return RESUMED if same else f"differs after resuming: {text}"


def two_writers(bench: Bench) -> str:
    first = run(bench.words(bench.fresh()))
    bench.moment()
    second = run(bench.words(bench.fresh()))
    said = [first.wait(), second.wait()]
    refused = [text for code, text in said if code]
    if len(refused) == 2 or not all(map(told_of_another, refused)):
        return f"unclear: {said}"
    return bench.afterwards(bench.fresh())


def killed_while_another_begins(bench: Bench) -> str:
    """The second knows of nothing that the first wrote after it began."""
    first = run(bench.words(bench.fresh()))
    bench.moment()
    second = run(bench.words(bench.fresh()))
    time.sleep(bench.chance.uniform(0, 0.5))
    first.send(signal.SIGKILL)
    first.wait()
    code, text = second.wait()
    if code and not told_of_another(text):
        return f"unclear: {text}"
    return bench.afterwards(bench.fresh())


def told_of_another(text: str) -> bool:
    told = ("is being written by another process", "is complete already", "another process wrote")
    return any(sentence in text for sentence in told)


def disk_full(bench: Bench) -> str:
    assert bench.small_disk is not None
    out, ballast = bench.small_disk / "tried", bench.small_disk / "ballast"
    child = run(bench.words(out))
    bench.moment()
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    code, text = child.wait()
    ballast.unlink()
    if code and "No space left" not in text and "free some space" not in text:
        return f"unclear: {text}"
    return bench.afterwards(out)
