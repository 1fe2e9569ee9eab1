"""Work in other processes, which is begun a little ahead of whoever takes its results, in order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import cv2
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from norface_lib.common.errors import StoppedError
from norface_lib.common.processes import end_with_process, interrupts_held


class Workers:
    """Processes that call functions with arguments that can be pickled; without any, this process
    calls them."""

    def __init__(self, count: int):
        self.count = count
        self.ahead = 2 * count + 1
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Begins a call, or without workers makes it at once and raises what it raises."""
        if not self.count:
            future: Future = Future()
            future.set_result(function(*arguments))
            return future
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count,
                initializer=_begin,
                initargs=(os.getpid(),),
                env={"OMP_NUM_THREADS": "1"},
            )
            with interrupts_held():  # all of them start here
                return self._pool.submit(function, *arguments)
        return self._pool.submit(function, *arguments)

    def in_order(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Results of ``function(*call)`` in the order of the calls; only a few of those that nobody
        has taken yet are held."""
        begun: deque[Future] = deque()
        for call in calls:
            begun.append(self.submit(function, *call))
            if len(begun) >= self.ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def end(self, at_once: bool) -> None:
        """Ends the processes, ``at_once`` in the middle of what they do."""
        if self._pool is not None:
            self._pool.shutdown(kill_workers=at_once)


@contextmanager
def workers_of(count: int) -> Iterator[Workers]:
    """Yields ``count`` worker processes, which start with the first call, and ends them; in the
    middle of what they do if the block is left by an error or a stop. They end with their parent.

    Raises :class:`StoppedError` if the system killed one of them.
    """
    workers = Workers(count)
    try:
        yield workers
    except BrokenProcessPool as error:
        workers.end(at_once=True)
        raise StoppedError(
            "the system killed a worker process (out of memory?); the same command goes on, with "
            "fewer --workers"
        ) from error
    except BaseException:
        workers.end(at_once=True)
        raise
    workers.end(at_once=False)


def _begin(parent: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_process(parent)
    cv2.setNumThreads(1)
