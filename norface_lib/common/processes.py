"""Worker processes that end with their parent, and a stop that ends them at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess


class Terminated(KeyboardInterrupt):
    """A request to end from outside (SIGTERM), which unwinds a program as Ctrl-C does."""


def end_with_parent(_: int = 0) -> None:
    """Makes this worker process end when its parent does, however that ends, kill -9 included.

    An ``initializer`` of a pool, or a ``worker_init_fn`` of a ``DataLoader``, which passes the
    worker's number. Does nothing in a process that has no parent of `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


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
