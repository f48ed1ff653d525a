"""Who may import whom, and which third-party package lives where (architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYER = ("mad_backend.core", "mad_backend.errors", "mad_backend.settings")
BELOW = (*LAYER, *(f"mad_backend.{p}" for p in ("models", "pool", "store", "label_studio", "targets")))

MAY_IMPORT = {  # The longest name that fits a module decides.
    "mad_backend.core": ("mad_backend.core", "mad_backend.errors"),
    "mad_backend.errors": (),
    "mad_backend.settings": ("mad_backend.settings", "mad_backend.core", "mad_backend.errors"),
    "mad_backend.settings_file": ("mad_backend.settings", "mad_backend.core", "mad_backend.errors"),
    "mad_backend.models": ("mad_backend.models", *LAYER),
    "mad_backend.models.label_studio_model": ("mad_backend.models", "mad_backend.label_studio", *LAYER),
    "mad_backend.pool": ("mad_backend.pool", *LAYER),
    "mad_backend.pool.mmseg_dataset": ("mad_backend.pool", "mad_backend.models.mmseg_model", *LAYER),
    "mad_backend.store": ("mad_backend.store", *LAYER),
    "mad_backend.label_studio": ("mad_backend.label_studio", *LAYER),
    "mad_backend.targets": ("mad_backend.models", *LAYER),
    "mad_backend.pictures": LAYER,
    "mad_backend.network": ("mad_backend.network", *LAYER),
    "mad_backend.serving": (
        "mad_backend.serving", "mad_backend.network", "mad_backend.pictures", "mad_backend.settings_file", *BELOW,
    ),
    "mad_backend.engines": ("mad_backend.engines", "mad_backend.models", "mad_backend.pool", *LAYER),
    "mad_backend.scan": (*BELOW, "mad_backend.engines"),
    "mad_backend.competition": BELOW,
    "mad_backend": ("mad_backend",),  # web, cli
    "sync.cli": (
        "sync", *LAYER, "mad_backend.network", "mad_backend.pool", "mad_backend.store", "mad_backend.label_studio",
        "mad_backend.settings_file", "mad_backend.cli",
    ),
    "sync": (
        "sync", *LAYER, "mad_backend.network", "mad_backend.pictures", "mad_backend.pool", "mad_backend.store",
        "mad_backend.label_studio",
    ),
    "training": (
        "training", "sync", *BELOW, "mad_backend.settings_file", "mad_backend.engines", "mad_backend.scan",
        "mad_backend.competition", "mad_backend.cli",
    ),
}  # fmt: skip
"""Module -> the modules of ours that it may import."""

FENCES = {
    "flask": ("mad_backend.web",),
    "waitress": ("mad_backend.web", "mad_backend.cli"),
    "prometheus_client": ("mad_backend.serving", "mad_backend.web"),
    "sqlalchemy": ("mad_backend.store",),
    "alembic": ("mad_backend.store",),
    "label_studio_sdk": (),
    "label_studio_ml": ("mad_backend.serving.label_studio_ml_model",),
    "requests": (
        "mad_backend.network",
        "sync.transport",
        "sync.embedded",
        "sync.doctor.visits",
        "mad_backend.models.label_studio_client",
    ),
    "apscheduler": ("training.scheduler",),
    "mmseg": ("mad_backend.models.mmseg_model", "mad_backend.pool.mmseg_dataset", "training"),
    "mmengine": ("mad_backend.models.mmseg_model", "training"),
    "onnxruntime": ("mad_backend.models.onnx_model",),
    "torchvision": ("mad_backend.models.torchvision_model",),
    "segmentation_models_pytorch": ("mad_backend.models.smp_model", "training.fresh_networks"),
    "transformers": ("mad_backend.models.hf_model", "training"),
    "ai_edge_litert": ("mad_backend.models.tflite_model",),
    "torch": ("mad_backend.models", "training"),
    "safetensors": ("mad_backend.models", "training"),
    "tensorboard": (),  # by way of torch.utils.tensorboard
    "mlflow": ("training.finetuning.trackers",),
    "pyarrow": ("mad_backend.pool",),
    "fsspec": ("mad_backend.pool.files",),
    "ray": (
        "mad_backend.engines.ray_engine",
        "mad_backend.engines.ray_connection",
        "training.finetuning.ray_launcher",
    ),
}
"""Third-party package -> where it may be imported."""

PURE = {"numpy", "PIL", "numba"}
"""What the core may use beside the standard library; Pillow resamples on the evaluation grid."""

HEAVY = {
    "torch", "torchvision", "transformers", "mmseg", "mmengine", "segmentation_models_pytorch", "onnxruntime",
    "ai_edge_litert", "safetensors", "ray",
}  # fmt: skip
"""Model runtimes: imported late in `mad_backend`, so that a missing one fails one model only."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in ("mad_backend", "sync", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


MODULES = list(modules())


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_a_module_imports_only_what_its_place_allows(name: str, tree: ast.Module) -> None:
    rule = max((place for place in MAY_IMPORT if is_in(name, (place,))), key=len)
    for imported in imports(tree):
        top = imported.partition(".")[0]
        if top in ("mad_backend", "sync", "training"):
            assert is_in(imported, MAY_IMPORT[rule]), f"{name} may not import {imported}"
        elif top in FENCES:
            assert is_in(name, FENCES[top]), f"{top} is confined to {FENCES[top]}"


def test_the_core_is_pure() -> None:
    import sys

    for name, tree in MODULES:
        if is_in(name, ("mad_backend.core",)):
            tops = {i.partition(".")[0] for i in imports(tree)} - {"mad_backend"}
            assert tops <= PURE | sys.stdlib_module_names, name


def test_model_runtimes_are_imported_late() -> None:
    for name, tree in MODULES:
        if is_in(name, ("mad_backend",)):
            at_top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
            assert not {i.partition(".")[0] for i in imports(at_top)} & HEAVY, name
