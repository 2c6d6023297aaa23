import threading
from functools import partial

import pytest

from lightsae.activations.extraction.background_writer import WriteBehind


def test_work_is_done_in_order_in_another_thread() -> None:
    done: list[tuple[int, bool]] = []
    here = threading.get_ident()
    with WriteBehind() as behind:
        for number in range(5):
            behind.do(partial(lambda n: done.append((n, threading.get_ident() == here)), number))
        behind.wait()
    assert done == [(number, False) for number in range(5)]


def test_the_caller_is_one_piece_ahead_at_most() -> None:
    may_end, begun = threading.Event(), threading.Event()
    with WriteBehind() as behind:
        behind.do(lambda: (begun.set(), may_end.wait(10))[0])
        assert begun.wait(10)
        threading.Timer(0.05, may_end.set).start()
        behind.do(lambda: None)
        assert may_end.is_set()


def test_an_error_comes_with_the_next_piece() -> None:
    def fail() -> None:
        raise OSError("full")

    done: list[int] = []
    with pytest.raises(OSError, match="full"), WriteBehind() as behind:
        behind.do(fail)
        behind.do(lambda: done.append(1))
    assert done == []


def test_what_was_begun_is_done_when_the_caller_fails() -> None:
    done: list[int] = []
    with pytest.raises(KeyError), WriteBehind() as behind:
        behind.do(lambda: done.append(1))
        raise KeyError
    assert done == [1]
