"""Images side by side on a CPU: a core each is faster than all cores on one image, which mostly wait for each other."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import Final, TypeVar

Given = TypeVar("Given")
Answer = TypeVar("Answer")

AT_ONCE: Final = 8
"""Images at most, since each needs memory of its own; more cores than that share them."""

_creating = Lock()


def side_by_side(work: Callable[[Given], Answer], given: Sequence[Given]) -> list[Answer]:
    """`work` of each, in order; by PyTorch's threads, one or a few of them for each call.

    Fewer calls than that are made one after the other, each with all of PyTorch's threads. Raises what `work` raises.
    """
    with _creating:
        pool, size = _workers()
    if size == 1 or len(given) < size:
        return [work(one) for one in given]
    return list(pool.map(work, given))


@lru_cache(maxsize=1)
def _workers() -> tuple[ThreadPoolExecutor, int]:
    """The threads of this process, and how many; each has its own number of PyTorch threads."""
    import torch

    threads = torch.get_num_threads()
    size = min(AT_ONCE, threads)
    started = Barrier(size)

    def begin() -> None:
        torch.get_num_threads()  # a thread that has not asked yet takes the process's number with its first sum
        torch.set_num_threads(threads // size)

    pool = ThreadPoolExecutor(size, thread_name_prefix="predict", initializer=begin)
    # All at the barrier at once: so each thread has begun.
    list(pool.map(lambda _: started.wait(), range(size)))
    torch.set_num_threads(threads)  # a thread's own number is also what threads begin with from then on
    return pool, size
