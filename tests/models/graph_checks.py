"""Small networks with settled batch norms, and what a graph of one must give; shared by the tests of graphs."""

from typing import Any

import torch
from torch import Tensor, nn

from mad_backend.models.graph import InferenceGraph

SIZE = (65, 65)


def called(module: Any, batch: Tensor) -> Tensor:
    logits: Tensor = module(batch)
    return logits


def settled(module: nn.Module) -> nn.Module:
    """In evaluation, with batch norms that have seen something."""
    torch.manual_seed(0)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean = torch.randn(child.num_features)
            child.running_var = torch.rand(child.num_features) + 0.5
            if child.affine:
                nn.init.uniform_(child.weight, 0.5, 1.5)
                nn.init.normal_(child.bias)
    return module.eval()


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(1, 3, *size) for size in sizes]


def equal(found: Tensor, expected: Tensor) -> bool:
    """But for rounding: other kernels add in another order."""
    return float((found - expected).detach().abs().max()) <= 1e-4 * float(expected.detach().abs().max())


def check(module: nn.Module, forward: Any = called, size: tuple[int, int] = SIZE) -> InferenceGraph:
    graph = InferenceGraph("m", module, forward, size)
    for image in images(size, (48, 80), (47, 61)):
        with torch.inference_mode():
            expected = forward(module, image)
        found = graph(image)
        assert found.shape == expected.shape
        assert equal(found, expected)
    assert graph.is_fused
    return graph


def rewritten(graph: InferenceGraph) -> list[nn.Module]:
    return [module for module in graph._twin.modules() if "forward" in vars(module)]
