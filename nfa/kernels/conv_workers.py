"""Independent tasks on all cores, a thread each, instead of every small operation on all of them.

Operations on blocks that fit a core's cache take some microseconds, less than it takes to meet the other
cores after each; on a machine with other work a core that is late holds up all the others every time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch

Task = TypeVar("Task")
Worker = Callable[[Task], None]


@contextmanager
def cores(device: torch.device) -> Iterator[int]:
    """Take PyTorch's threads, to be used by `run_tasks`; yields how many, one unless the device is a CPU.

    Inside, an operation on a CPU runs on one thread; the number is restored afterwards.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def run_tasks(
    tasks: Sequence[Task],
    make_worker: Callable[[], Worker],
    threads: int = 1,
    done: Callable[[Task], None] | None = None,
) -> None:
    """Do every task once; workers run without gradients, and in inference mode where the caller does.

    Args:
        tasks: what to do; no two may write to the same place.
        make_worker: called once in each thread; a worker may own buffers.
        threads: as many as `cores` yielded, at most.
        done: called in the caller's thread after each task.
    """
    threads = min(threads, len(tasks))
    if threads <= 1:
        with torch.no_grad():
            worker = make_worker()
            for task in tasks:
                worker(task)
                if done is not None:
                    done(task)
        return
    waiting = deque(tasks)
    finished: SimpleQueue[tuple[Task] | BaseException] = SimpleQueue()
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        try:
            with torch.inference_mode(inference), torch.no_grad():
                worker = make_worker()
                for task in _left(waiting):
                    worker(task)
                    finished.put((task,))
        except BaseException as error:
            finished.put(error)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in range(threads):
                pool.submit(work)
            for _ in tasks:
                one = finished.get()
                if isinstance(one, BaseException):
                    raise one
                if done is not None:
                    done(*one)
        finally:
            waiting.clear()


def _left(waiting: deque[Task]) -> Iterator[Task]:
    """Take one task after the other, as do other threads, until there is none."""
    while True:
        try:
            task = waiting.popleft()
        except IndexError:
            return
        yield task
