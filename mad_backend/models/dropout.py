"""Dropout that is at work although its network is in evaluation, from random numbers of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Dropout:
    """The share of values, or of whole channels, that is set to 0."""

    share: float
    is_by_channel: bool

    def of(self, features: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
        """(n, C, ...) of the same shape: some set to 0, the others scaled up for it."""
        import torch

        ones = [1] * (features.ndim - 2)
        shape = (*features.shape[:2], *ones) if self.is_by_channel else features.shape
        kept = torch.rand(shape, generator=generator, device=features.device) >= self.share
        return features * kept / max(1 - self.share, 1e-6)


@contextmanager
def active_dropout(
    generator: "torch.Generator",
) -> "Iterator[list[tuple[Dropout, torch.Tensor]]]":
    """All dropout of this thread is at work, by `generator`; gives the list of its calls, and what each answered.

    Calls are caught where they go through `torch.nn.functional`, which modules do too; a share of 0 is no call. Modes
    of modules are not touched: batch norm stays in evaluation, and other threads may use the same network. Stochastic
    depth and alpha dropout stay off.
    """
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    calls: list[tuple[Dropout, torch.Tensor]] = []
    by_channel = {
        functional.dropout: False,
        functional.dropout1d: True,
        functional.dropout2d: True,
        functional.dropout3d: True,
    }

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            if function not in by_channel or not kwargs["p"]:
                return function(*args, **kwargs)
            dropout = Dropout(kwargs["p"], by_channel[function])
            answer = dropout.of(args[0], generator)
            calls.append((dropout, answer))
            return answer

    with Mode():
        yield calls
