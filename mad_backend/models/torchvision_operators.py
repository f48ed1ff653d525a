"""Lets torchvision be imported beside a torch that its compiled part does not fit."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def define_missing_operators() -> None:
    """Declares the two operators without which `import torchvision` fails where its library cannot be loaded.

    The wheels on PyPI are built for CUDA. Beside a CPU build of torch their mere presence breaks mmseg, transformers,
    timm and whatever else looks for torchvision. No segmentation network calls the two. To be called before any import
    that may reach torchvision; does nothing without torchvision, or with a working one.
    """
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    for library in Path(found.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
