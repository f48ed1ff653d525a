"""The way into a Ray cluster, or to a Ray of this machine's own."""

import logging
import os
import signal
import socket
from threading import current_thread, main_thread
from typing import Any

from mad_backend.errors import MissingRuntimeError, ScanError


def import_ray(address: str | None, wanted_by: str = "scan.engine ray") -> Any:
    """The module, set up for `address` (see `connect`); raises MissingRuntimeError where it is not installed.

    `wanted_by` is the setting that errors name.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # what it starts would tell its makers
    if address is None:
        # Before the import: services of its own on loopback, as on macOS, so that no other host can run code here.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingRuntimeError(
            f"{wanted_by} needs {error.name}; pip install 'mad-segmentation[ray]'"
        ) from error
    return ray


def connect(ray: Any, address: str | None, setting: str = "scan.ray.address") -> None:
    """Joins the cluster at "host:port", or at "auto" that of this machine; None starts a Ray of this machine's own.

    Raises ScanError when nobody answers there. `ray.shutdown()` ends the connection, and what was started here.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address and address != "auto":
            _knock(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError) as error:
        raise ScanError(
            f"no Ray cluster answers at {address} ({setting}): {error}; wanted host:port of its head node, "
            "auto on one of its nodes, or null for a Ray of this machine's own"
        ) from error
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, before)  # ray takes it for itself


def _knock(address: str) -> None:
    """Raises OSError or ValueError when nobody listens there; ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()
