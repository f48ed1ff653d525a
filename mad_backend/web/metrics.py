"""What a web process counts, and what is served, for Prometheus.

With PROMETHEUS_MULTIPROC_DIR in the environment before this module is imported, any of the processes answers for all.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from mad_backend.errors import StoreError
from mad_backend.serving.target_service import TargetService
from mad_backend.serving.targets import TargetState
from mad_backend.store.store import Store

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)
"""Label Studio waits 100 s for predictions."""


class Served(Collector):
    """Which version is served, how it is and since when; asked at each scrape, since it is the same for all workers."""

    def __init__(self, service: TargetService, store: Store, target: str) -> None:
        self._service = service
        self._store = store
        self._target = target

    def collect(self) -> Iterator[Metric]:
        """What the database would have to tell is left out while it is away."""
        try:
            status = self._service.status()
        except StoreError:
            return
        info = GaugeMetricFamily("mad_target_info", "The version served", labels=["target", "version"])
        info.add_metric([self._target, status.version or ""], 1)
        state = GaugeMetricFamily("mad_target_state", "1 for the state it is in", labels=["state"])
        for one in TargetState:
            state.add_metric([one], float(status.state is one))
        yield info
        yield state
        try:
            promoted = {v.version: v.promoted_at for v in self._store.versions.all()}.get(
                status.version or ""
            )
        except StoreError:
            return
        if promoted:
            yield GaugeMetricFamily(
                "mad_target_promoted_timestamp_seconds",
                "When the version served was promoted; time() less this is its age",
                promoted.timestamp(),
            )


class WebMetrics:
    """Of one application."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "mad_http_requests", "Requests answered", ["endpoint", "status"], registry=registry
        )
        self._seconds = Histogram(
            "mad_http_request_seconds",
            "Time until the answer was made",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "mad_predict_in_flight",
            "Requests for predictions being answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.busy = Counter(
            "mad_predict_busy",
            "Requests for predictions sent away, too many being answered",
            registry=registry,
        )
        self.abandoned = Counter(
            "mad_predict_abandoned", "Requests for predictions whose client hung up", registry=registry
        )
        self._asked = Counter("mad_tasks_asked", "Tasks that predictions were asked for", registry=registry)
        self._answered = Counter("mad_tasks_answered", "Tasks answered with regions", registry=registry)
        self._empty = Counter(
            "mad_tasks_failed", "Tasks answered without regions; the log says why", registry=registry
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts an answer; `endpoint` is a route's name, never a path."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def in_flight(self) -> AbstractContextManager[object]:
        """Entered while a request for predictions is being answered."""
        return self._in_flight.track_inprogress()

    def asked(self, tasks: int) -> None:
        self._asked.inc(tasks)

    def answered(self, with_regions: int, without: int) -> None:
        self._answered.inc(with_regions)
        self._empty.inc(without)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(self._served)
