"""What a web worker is started with; apart from the supervisor, which workers have no use for."""

from dataclasses import dataclass
from pathlib import Path

from mad_backend.settings import Secrets, Settings


@dataclass(frozen=True)
class WebJob:
    """`listener` is the number of the listening socket; `folder` where the supervisor announces what is served."""

    settings: Settings
    secrets: Secrets
    listener: int
    folder: Path
