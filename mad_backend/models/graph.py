"""PyTorch networks made ready for inference: the same logits from fewer and faster operations."""

import logging
import os
from collections.abc import Callable
from copy import deepcopy
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mad_backend.models.graph_blocks import simplify_blocks
from mad_backend.models.graph_convolutions import fuse_convolutions
from mad_backend.settings import Precision

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Forward: TypeAlias = "Callable[[Any, torch.Tensor], torch.Tensor]"
"""(module, (n, 3, H, W) batch) -> (n, C, h, w) logits."""

TOLERANCES: Final = {"fp32": 1e-3, "bf16": 0.25, "fp16": 0.25}
"""How far logits may be from the network's own, as a share of the largest. Other summation orders make some 1e-5, half
precision 0.01 to 0.15, the same as autocast makes.
"""

FAILURES: Final = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
"""What a network of somebody else's may raise when it is copied and rewritten."""


class InferenceGraph:
    """A network's twin for inference: batch norm and activations inside packed convolutions, pixels channels-last.

    The twin shares the weights of `module`, which stays as it is, and takes inputs of every shape. It is made at the
    first call, and anew when weights have been written to since, or the device is another. After putting a parameter in
    another's place, or writing through `.data`, make a new graph.

    It is compared with the network on one smooth random image of `size`; where they disagree, or it cannot be made, the
    network itself is run. That depends on weights and settings alone, so that an interrupted scan goes on with the same
    bits. On a CPU images are run one by one: intermediate results stay in the cache, which is faster than a batch, and
    logits do not depend on which images came together.

    At `precision` bf16 or fp16 the twin has weights of its own in it throughout, without autocast's conversions; the
    network itself, if it has to step in, runs under autocast.
    """

    def __init__(
        self,
        model: str,
        module: Any,
        forward: Forward,
        size: tuple[int, int],
        precision: Precision = "fp32",
    ) -> None:
        self._model = model
        self._module = module
        self._forward = forward
        self._size = size
        self._precision = precision
        # oneDNN compiles a kernel for each convolution and shape, and keeps 1024 of them: not enough for some models on
        # photos of many shapes, which then take a tenth longer. A kernel is some 16 kB; the first convolution of the
        # process reads this.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
        self._twin: Any = None
        self._made_for: tuple[torch.device, list[int]] | None = None
        self._parameters: list[torch.Tensor] = []
        self._making = Lock()

    def __call__(self, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, C, h, w) float32 logits of a (n, 3, H, W) float32 batch on the network's device; from any thread."""
        import torch

        with torch.inference_mode():
            twin = self.network(batch.device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            if batch.device.type != "cpu":
                return self._run(twin, batch)
            logits = [self._run(twin, batch[n : n + 1]) for n in range(len(batch))]
            return logits[0] if len(logits) == 1 else torch.cat(logits)

    def network(self, device: "torch.device") -> Any:
        """What is run on `device` now: the twin, or the network itself."""
        with self._making:
            if self._made_for != (device, self._versions()):
                # An inference tensor has no version, because nothing can write to it.
                self._parameters = [p for p in self._module.parameters() if not p.is_inference()]
                self._twin = self._prepared(device)
                self._made_for = device, self._versions()
            return self._twin

    @property
    def is_fused(self) -> bool:
        """False before the first call, and where the network itself is run."""
        return self._twin is not None and self._twin is not self._module

    def _run(self, twin: Any, batch: "torch.Tensor") -> "torch.Tensor":
        import torch

        if twin is not self._module:
            return self._forward(twin, batch.to(self._dtype)).float()
        with torch.autocast(batch.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self._forward(twin, batch).float()

    @property
    def _dtype(self) -> "torch.dtype":
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self._precision]

    def _versions(self) -> list[int]:
        """Changes when a parameter is written to; cheap enough to ask at every call."""
        return [parameter._version for parameter in self._parameters]  # noqa: SLF001 - as autograd's own checks do

    def _prepared(self, device: "torch.device") -> Any:
        """The twin, or where that does not work the network itself."""
        import torch

        if isinstance(self._module, torch.jit.ScriptModule):
            return self._module  # compiled: it has no Python modules to rewrite
        # Fusing needs version counters, which tensors made in inference mode lack.
        with torch.inference_mode(mode=False), torch.no_grad():
            sample = _sample(self._size).to(device, memory_format=torch.channels_last)
            try:
                twin, error = self._fused(sample)
            except FAILURES as reason:
                log.warning('model "%s" is run as it is, not fused: %s', self._model, str(reason)[:300])
                return self._module
        if error <= TOLERANCES[self._precision]:
            return twin
        log.warning('model "%s" is run as it is: fused, its logits are off by %.1e', self._model, error)
        return self._module

    def _fused(self, sample: "torch.Tensor") -> tuple[Any, float]:
        """The twin, and how far its logits of `sample` are from the network's, as a share of the largest."""
        memo = {}
        if self._precision == "fp32":
            memo = {id(tensor): tensor for tensor in (*self._module.parameters(), *self._module.buffers())}
        twin = deepcopy(self._module, memo).eval()
        expected = fuse_convolutions(twin, lambda: self._forward(twin, sample))
        simplify_blocks(twin)
        if self._precision != "fp32":
            twin = twin.to(self._dtype)
        found = self._forward(twin, sample.to(self._dtype)).float()
        return twin, float((found - expected).abs().max() / expected.abs().max())


def _sample(size: tuple[int, int]) -> "torch.Tensor":
    """(1, 3, H, W) float32, smooth like a photo and of its spread once normalised; always the same."""
    import torch

    coarse = torch.randn((1, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
