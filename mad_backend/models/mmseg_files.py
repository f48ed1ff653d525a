"""Which files an mmengine configuration consists of, found without executing it or importing mmengine."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mad_backend.errors import ModelError


def config_files(config: Path) -> list[Path]:
    """`config` and every configuration that it inherits from, in the order in which they are named.

    Raises OSError when one cannot be read, ModelError when one says in other words than names where its bases are.
    """
    found: list[Path] = []
    waiting = [config]
    while waiting:
        path = waiting.pop(0).resolve()
        if path not in found:
            found.append(path)
            waiting += _bases(path)
    return found


def _bases(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":  # YAML, of which JSON is a part
        return _named(path, (yaml.safe_load(text) or {}).get("_base_", []))
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ModelError(f"mmsegmentation configuration {path}: {error}") from error
    return [base for statement in tree.body for base in _bases_in(path, statement)]


def _bases_in(path: Path, statement: ast.stmt) -> Iterator[Path]:
    """`_base_ = ...`, or the imports under `with read_base():`."""
    match statement:
        case ast.Assign(targets=[ast.Name(id="_base_")], value=value):
            try:
                named = ast.literal_eval(value)
            except ValueError:
                raise ModelError(
                    f"mmsegmentation configuration {path}: _base_ must be a name or a list of names in plain text"
                ) from None
            yield from _named(path, named)
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Name(id="read_base")))], body=body):
            for node in body:
                if isinstance(node, ast.ImportFrom):
                    yield from _imported(path, node)


def _named(path: Path, named: Any) -> list[Path]:
    names = [named] if isinstance(named, str) else list(named)
    # "scope::file" belongs to an installed package, whose version stands for it.
    return [path.parent / name for name in names if "::" not in name]


def _imported(path: Path, node: ast.ImportFrom) -> list[Path]:
    if not node.level:
        return []
    folder = path.parents[node.level - 1]
    if node.module:
        return [folder.joinpath(*node.module.split(".")).with_suffix(".py")]
    return [folder / f"{alias.name}.py" for alias in node.names]
