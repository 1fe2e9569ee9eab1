"""Worker processes that end with their parent, and a stop that ends them at once."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.process import BaseProcess
from types import FrameType


def is_first() -> bool:
    """False in all but the first of several processes that ``accelerate launch`` or ``torchrun``
    started together."""
    return os.environ.get("RANK", "0") == "0"


class Terminated(KeyboardInterrupt):
    """A request to end from outside (SIGTERM), which unwinds a program as Ctrl-C does."""


def end_with_parent(_: int = 0) -> None:
    """Makes this worker process end when its parent does, however that ends, kill -9 included.

    An ``initializer`` of a pool, or a ``worker_init_fn`` of a ``DataLoader``, which passes the
    worker's number. A Ctrl-C, which a terminal sends to a whole process group, is left to the
    parent. Does nothing in a process that has no parent of `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked worker has its parent's handler

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


@lru_cache
def end_with_process(number: int) -> None:
    """Makes this process end within a second after its parent of that ``number`` did. Does nothing
    in the parent itself, nor when it is called again; for workers that `end_with_parent` cannot
    serve, such as joblib's."""
    if number == os.getpid():
        return

    def wait() -> None:
        while os.getppid() == number:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, name="end-with-process", daemon=True).start()


SENTENCE = "norface: stopped; the same command goes on"
"""What a user reads after Ctrl-C."""


def stop_at_once() -> None:
    """From here on, Ctrl-C and SIGTERM end this process with a sentence, and no more: for the
    moments before and after a command, when nothing is written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored on purpose, as by nohup
            signal.signal(number, _stop)


@contextmanager
def stops_raised() -> Iterator[None]:
    """Within the block, Ctrl-C raises ``KeyboardInterrupt`` and SIGTERM :class:`Terminated`, so
    that what is under way is unwound."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def forget_interrupt() -> None:
    """Makes a ``KeyboardInterrupt`` that was caught leave the exit code alone.

    CPython notes one that passes through an ``exec`` of a text, as in the import of dataclasses,
    and ends the process by SIGINT even if it was caught further up; the next such ``exec`` resets
    that.
    """
    exec("")


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{SENTENCE}\n".encode())
    os._exit(128 + number)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes that start within the block never receive a Ctrl-C, which a terminal sends to a
    whole process group: their parent alone handles it, and ends them.

    A Ctrl-C during the block reaches this process at the end of it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def workers_ended() -> Iterator[list[BaseProcess]]:
    """Ends the worker processes that started within the block if it is left by an error or a stop,
    so that nobody waits for what they were doing. Yields an empty list, for the block's use."""
    before = frozenset(multiprocessing.active_children())
    try:
        yield []
    except BaseException:
        end_workers(before)
        raise


def end_workers(others: frozenset[BaseProcess] = frozenset()) -> None:
    """Ends all worker processes of this process but some ``others``."""
    for worker in set(multiprocessing.active_children()) - others:
        worker.kill()


def end_all_workers() -> None:
    """Ends all worker processes of a process that ends, too. PyTorch, which would report them as
    killed, is not told."""
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_workers()
