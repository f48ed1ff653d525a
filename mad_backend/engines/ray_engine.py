"""The engine of a Ray cluster: sets of models as actors on its nodes, chunks as their tasks."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mad_backend.engines.base import (
    IN_FLIGHT,
    ChunkResult,
    ChunkTask,
    Engine,
    ModelRecipe,
    ReadBytes,
    in_order,
)
from mad_backend.engines.ray_connection import connect, import_ray
from mad_backend.engines.worker import ChunkWorker
from mad_backend.errors import MadError, ScanError

log = logging.getLogger(__name__)

QUEUED = IN_FLIGHT + 1
"""Chunks given to an actor at once: one more than it works on, so that it never waits for this process."""

LOSSES = 3
"""So often a chunk is lost with its actor; then it is what ends them."""

POLL_S = 1.0


class RayEngine(Engine):
    """Chunks go to whichever actor has room; which one it is does not show in the results.

    Nodes need this package in the same version, `read` by its name, and every file of pool and models under the path
    that it has here (a shared file system or object storage). `address` None starts a Ray of this machine's own, which
    listens on loopback only and ends with the engine; "auto" or "host:port" joins a cluster that this machine is a node
    of, and leaves it as it was; a process that is connected already stays so. `actors` None: as many as the cluster has
    room for. With GPUs, each actor has its own "cuda:0".

    An actor that is lost with its process or node is replaced, its chunks are done again elsewhere. Raises ScanError
    when no actor has started after `start_timeout_s`, when none is left, or when a chunk ends one actor after another;
    and whatever a model raised.
    """

    def __init__(
        self,
        recipes: Sequence[ModelRecipe],
        read: ReadBytes,
        *,
        address: str | None = None,
        actors: int | None = None,
        cpus_per_actor: float = 1.0,
        gpus_per_actor: float = 0.0,
        decode_threads: int | None = None,
        start_timeout_s: float = 300.0,
    ) -> None:
        self._ray = import_ray(address)
        self._start_timeout_s = start_timeout_s
        self._wanted = {"CPU": cpus_per_actor, "GPU": gpus_per_actor}
        device = "cuda:0" if gpus_per_actor else None
        threads = decode_threads or max(1, int(cpus_per_actor))
        self._arguments = (tuple(recipes), read, device, threads)
        self._waiting: deque[_Chunk] = deque()
        self._given: dict[Any, tuple[_Chunk, _Actor]] = {}
        self._starting: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._last_loss = ""
        self._is_own_connection = not self._ray.is_initialized()
        try:
            if self._is_own_connection:
                connect(self._ray, address)
            self._kind = self._ray.remote(
                num_cpus=cpus_per_actor,
                num_gpus=gpus_per_actor,
                max_concurrency=IN_FLIGHT,
                # Ray would start a lost actor and its chunks again without end, or wait for room without a word.
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )(_Replica)
            self._number = actors or self._room()
            for _ in range(self._number):
                self._start()
            while not self._actors:
                self._turn()
        except BaseException:
            self.close()
            raise

    @property
    def replicas(self) -> int:
        return max(1, len(self._actors))

    def run(self, tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        yield from in_order(tasks, self._submit, self._result_of, QUEUED * self._number)

    def close(self) -> None:
        for actor in (*self._actors, *self._starting.values()):
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._starting.clear()
        self._given.clear()
        if self._is_own_connection:
            self._is_own_connection = False
            self._ray.shutdown()

    def _submit(self, task: ChunkTask) -> "_Chunk":
        chunk = _Chunk(task)
        self._waiting.append(chunk)
        self._give()
        return chunk

    def _result_of(self, chunk: "_Chunk") -> ChunkResult:
        while chunk.found is None:
            self._turn()
        if isinstance(chunk.found, MadError):
            raise chunk.found
        return chunk.found

    def _turn(self) -> None:
        """Waits until an actor has started or a chunk is done, for `POLL_S` at most, and gives out what there is."""
        if not self._starting and not self._actors:
            raise ScanError(
                f"no Ray actor is left that could go on; the last was lost so: {self._last_loss}. Run the scan again, "
                "nothing finished is lost"
            )
        ready, _ = self._ray.wait([*self._starting, *self._given], num_returns=1, timeout=POLL_S)
        for ref in ready:
            if ref in self._starting:
                self._welcome(ref, self._starting.pop(ref))
            else:
                self._settle(ref, *self._given.pop(ref))
        if not self._actors and self._starting:
            self._be_patient()
        self._give()

    def _give(self) -> None:
        """Chunks to actors with room, the least busy first."""
        while self._waiting and self._actors:
            actor = min(self._actors, key=lambda a: a.busy)
            if actor.busy + self._waiting[0].weight > QUEUED:
                return
            chunk = self._waiting.popleft()
            actor.busy += chunk.weight
            self._given[actor.handle.run.remote(chunk.task)] = chunk, actor

    def _settle(self, ref: Any, chunk: "_Chunk", actor: "_Actor") -> None:
        actor.busy -= chunk.weight
        try:
            chunk.found = self._fetch(ref)
        except MadError as error:  # raised in its turn, after the results before it
            chunk.found = error
        except _LostError as lost:
            self._replace(actor, str(lost))
            chunk.losses += 1
            if chunk.losses < LOSSES:
                self._waiting.appendleft(chunk)
            else:
                chunk.found = ScanError(
                    f"chunk {chunk.task.number} (first image {chunk.task.images[0].image.image_id}) was lost with its "
                    f"Ray actor {LOSSES} times, most often for lack of memory: lower batch_size or scan.chunk, or "
                    f"raise scan.ray.cpus_per_actor for fewer actors a node. The last time: {lost}"
                )

    def _replace(self, actor: "_Actor", reason: str) -> None:
        self._last_loss = reason
        if actor in self._actors:  # else another of its chunks told of it before
            log.warning("a Ray actor is lost, its chunks are done again: %s", reason)
            self._actors.remove(actor)
            self._ray.kill(actor.handle)
            self._start()

    def _welcome(self, ref: Any, actor: "_Actor") -> None:
        """Takes an actor whose models are loaded. One that was lost before is not replaced: the next would be too."""
        try:
            node = self._fetch(ref)
        except _LostError as lost:
            self._last_loss = str(lost)
            log.warning("a Ray actor was lost while its models were loaded: %s", lost)
        else:
            log.info("a Ray actor has started on node %s", node)
            self._actors.append(actor)

    def _start(self) -> None:
        handle = self._kind.remote()
        self._starting[handle.load.remote(*self._arguments)] = _Actor(handle)

    def _fetch(self, ref: Any) -> Any:
        """What a task returned or raised; _LostError when its actor is gone."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, MadError):
                raise cause from None
            raise ScanError(f"a Ray actor failed:\n{error}") from None
        except (
            exceptions.RayActorError,
            exceptions.ObjectLostError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
        ) as error:
            told = " ".join(str(error).split())
            raise _LostError(told.partition("The actor is dead because ")[2][:200] or told[:200]) from None
        except exceptions.RayError as error:
            raise ScanError(f"the Ray cluster failed: {error}") from error

    def _be_patient(self) -> None:
        """Raises ScanError when the last of the starting actors has had its time."""
        waited_s = time.monotonic() - max(actor.began for actor in self._starting.values())
        if waited_s > self._start_timeout_s:
            raise ScanError(
                f"no Ray actor has started in {self._start_timeout_s:g} s: each wants {_listed(self._wanted)}; the "
                f"cluster has {_listed(self._ray.cluster_resources())}, of which free: "
                f"{_listed(self._ray.available_resources())}. Lower scan.ray.cpus_per_actor or gpus_per_actor, wait "
                "for others to finish, or raise scan.ray.start_timeout_s if loading the models takes longer"
            )

    def _room(self) -> int:
        """How many actors fit into the nodes that there are, in use or not."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = {name: amount for name, amount in self._wanted.items() if amount}
        room = sum(
            min(int(node.get(name, 0) / amount + 1e-9) for name, amount in needs.items()) for node in nodes
        )
        if room:
            return room
        raise ScanError(
            f"no node of the Ray cluster has room for an actor, which wants {_listed(self._wanted)}; the nodes have "
            f"{'; '.join(map(_listed, nodes))}. Lower scan.ray.cpus_per_actor or gpus_per_actor, or set "
            "scan.ray.actors if the cluster grows by itself"
        )


@dataclass(eq=False)
class _Chunk:
    task: ChunkTask
    found: ChunkResult | MadError | None = None
    losses: int = 0

    @property
    def weight(self) -> int:
        """One that was lost has its next actor to itself, so that no other is blamed for what it does."""
        return QUEUED if self.losses else 1


@dataclass(eq=False)
class _Actor:
    """`busy` is the weight of the chunks that it was given and has not returned; `began` is monotonic time."""

    handle: Any
    busy: int = 0
    began: float = field(default_factory=time.monotonic)


class _LostError(Exception):
    """An actor's process or node is gone, or what it returned."""


class _Replica:
    """One set of models; an actor's class, on a node of the cluster."""

    def load(
        self, recipes: Sequence[ModelRecipe], read: ReadBytes, device: str | None, decode_threads: int
    ) -> str:
        """Makes the actor ready; returns its node's id. Not the constructor: its errors would be the actor's death."""
        models = [recipe.load(device) for recipe in recipes]
        self._worker = ChunkWorker(models, recipes[0].grid, read, decode_threads)
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, task: ChunkTask) -> ChunkResult:
        return self._worker.run(task)


def _listed(resources: Any) -> str:
    """The processors among a node's or a cluster's resources: "2 CPU, 0 GPU"."""
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
