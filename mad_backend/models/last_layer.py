"""The layer that makes the class scores, whatever the network, and what enters it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class Call(NamedTuple):
    """A convolution, its (n, d, h, w) input and its (n, C, h', w') output."""

    layer: Any
    given: "torch.Tensor"
    answered: "torch.Tensor"


@contextmanager
def watched_convolutions(network: Any, outputs: set[int]) -> Iterator[list[Call]]:
    """Lists the calls of convolutions with as many channels as there are class scores, in their order.

    The last of them makes the scores. Auxiliary heads, which some networks run after it, have "aux" in their name.
    """
    from torch import nn

    calls: list[Call] = []

    def note(layer: Any, given: tuple[Any, ...], answer: Any) -> None:
        calls.append(Call(layer, given[0], answer))

    handles = [
        module.register_forward_hook(note)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and module.out_channels in outputs
        and "aux" not in name
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class LastLayer:
    """Tells each thread what entered a layer while it listened."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._thread = threading.local()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Threads can listen meanwhile; attach from one thread only."""
        handle = self._layer.register_forward_pre_hook(self._hear)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def listening(self) -> Iterator["list[torch.Tensor]"]:
        """Lists the inputs of the layer in this thread, one a call of it: several where a network slides a window."""
        heard: list[torch.Tensor] = []
        self._thread.heard = heard
        try:
            yield heard
        finally:
            del self._thread.heard

    def _hear(self, _layer: Any, given: tuple[Any, ...]) -> None:
        heard = getattr(self._thread, "heard", None)
        if heard is not None:
            heard.append(given[0])
