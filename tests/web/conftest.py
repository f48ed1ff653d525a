"""A small project as the web process finds it."""

from tests.served_world import open_service, service, world

__all__ = ["open_service", "service", "world"]
