"""What tests of images of tasks share: settings that allow little, and readers of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mad_backend.errors import ImageError
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Secrets, Settings

TOKEN = "5ec2e7" * 7
SECRETS = Secrets(label_studio_token=SecretStr(TOKEN))
CONTENT = b"\x89PNG and more"
Change = Callable[..., Settings]


def settings_at(
    root: Path, label_studio: dict[str, Any] | None = None, serve: dict[str, Any] | None = None, **images: Any
) -> Settings:
    """With these keys in serve.images and the other sections."""
    folder = {"kind": "folder", "path": root}
    return Settings.model_validate(
        {
            "workspace": root / "work",
            "label_set": root / "none.yaml",
            **{key: [{"name": "pool", "images": root}] for key in ("pool", "s0", "t0")},
            "models": {"name": "scenes", "target": folder, "competing": {"other": folder}},
            "label_studio": label_studio or {},
            "serve": {**(serve or {}), "images": images},
        }
    )


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """`settings_at` a folder of the test's own."""
    return partial(settings_at, tmp_path)


def sign(text: str) -> str:
    return f"{len(text):032x}"


def reader(settings: Settings, secrets: Secrets = SECRETS, **options: Any) -> TaskImageReader:
    return TaskImageReader(settings, secrets, sign, **options)


def refusal(tasks: TaskImageReader, address: str) -> str:
    with pytest.raises(ImageError) as caught:
        tasks.read(address)
    assert "SECRET" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)
