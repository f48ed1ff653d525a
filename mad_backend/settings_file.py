"""Reading settings and label sets from their YAML files."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.errors import SettingsError
from mad_backend.settings import Secrets, Settings


def load_settings(path: Path, kind: type[Settings] = Settings) -> Settings:
    """Reads and checks a settings file; raises SettingsError naming file, key, what was wanted and what came."""
    raw = read_yaml(path)
    try:
        settings = kind.model_validate(_rebased(raw, path.parent))
    except ValidationError as error:
        raise SettingsError(
            f"{path}: " + "; ".join(_explain(e) for e in _innermost(error.errors()))
        ) from None
    database = Secrets().database
    return settings.model_copy(update={"database": database}) if database else settings


def load_label_set(path: Path) -> LabelSet:
    """Reads `name` and `classes` (name, color as "#rrggbb"); the class marked `background: true` must be first."""
    raw = read_yaml(path)
    try:
        classes = tuple(LabelClass(c["name"], _rgb(c["color"])) for c in raw["classes"])
        marked = [bool(c.get("background", False)) for c in raw["classes"]]
        name = str(raw["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f'{path}: {error!r}; wanted name and classes, each {{name: ..., color: "#rrggbb"}}'
        ) from None
    if any(marked[1:]):
        raise SettingsError(f"{path}: the background class must be the first one")
    return LabelSet(name, classes, has_background=marked[:1] == [True])


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises SettingsError when the file is missing or is something else."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}; give a settings file with --config"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: wanted a mapping at the top, got {type(raw).__name__}")
    return raw


PATH_KEYS = frozenset(
    {
        "workspace",
        "cache",
        "label_set",
        "images",
        "list",
        "manifest",
        "masks",
        "voc",
        "cityscapes",
        "coco",
        "mmseg",
        "mlflow",
        "path",
        "config",
        "ca_file",
        "client_cert",
        "root",
    }
)
PATH_LISTS = frozenset({"roots"})
NAME_TABLES = frozenset({"classes", "windows", "storage_options"})
"""Tables whose keys are not ours (class names, a file system's options) and may be spelt like one ("path")."""


def _rebased(value: Any, root: Path) -> Any:
    """Makes every relative path of the file relative to the file's own folder."""
    if isinstance(value, dict):
        return {
            key: _absolute(item, root)
            # A model's `images` is a word ("serve"), a source's a folder.
            if key in PATH_KEYS and isinstance(item, str) and not (key == "images" and "kind" in value)
            else [_absolute(part, root) for part in item]
            if key in PATH_LISTS and isinstance(item, list)
            else item
            if key in NAME_TABLES
            else _rebased(item, root)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rebased(item, root) for item in value]
    return value


def _absolute(path: Any, root: Path) -> Any:
    return str((root / path).resolve()) if isinstance(path, str) and "://" not in path else path


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _innermost(errors: list[Any]) -> list[Any]:
    """Without those that only follow from others: a list is too short because its item is wrong."""
    inner = [error["loc"] for error in errors]
    return [
        e for e in errors if not any(loc != e["loc"] and loc[: len(e["loc"])] == e["loc"] for loc in inner)
    ]


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error" or "storage_options" in error["loc"]:
        # Our own message says everything, and what came may be a secret.
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] != "extra_forbidden":
        given = error.get("input")
        is_whole = isinstance(given, dict | list)  # with whatever else is in it
        return f"{where}: {error['msg']}, got {type(given).__name__ if is_whole else repr(given)}"[:300]
    known = _known_keys(Settings)
    near = difflib.get_close_matches(str(error["loc"][-1]), sorted(known), n=1)
    return f"unknown key {where}" + (f'; did you mean "{near[0]}"?' if near else "")


def _known_keys(section: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in section.model_fields.items():
        found.add(name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _known_keys(part)
    return found
