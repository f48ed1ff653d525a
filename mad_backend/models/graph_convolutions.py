"""Convolutions that take the batch norm and the activation behind them with them."""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

Activation: TypeAlias = tuple[str, list[float], str]
"""An activation in oneDNN's words: name, parameters, algorithm."""
PLAIN: Activation = ("none", [], "")


class Convolution:
    """A 2-D convolution with its activation, as the `forward` of a torch module in evaluation.

    `weight` (outputs, inputs / groups, rows, columns) and `bias` have batch norm in them already; they follow the
    precision of the input. On a CPU with oneDNN the activation is part of the kernel, and weights are packed for the
    shape of the last input; elsewhere `activation` must be plain.
    """

    def __init__(
        self, of: Any, weight: "torch.Tensor", bias: "torch.Tensor | None", activation: Activation = PLAIN
    ) -> None:
        import torch

        self.stride, self.dilation, self.groups = list(of.stride), list(of.dilation), of.groups
        self.padding = list(of.padding)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias
        self.activation = activation
        self.is_packable = can_pack(weight)
        self.packed: tuple[torch.Size, torch.Tensor] | None = None

    def __call__(self, x: "torch.Tensor", padding: list[int] | None = None) -> "torch.Tensor":
        """(n, outputs, h', w') of (n, inputs, h, w); `padding` instead of the module's own."""
        import torch

        if self.weight.dtype != x.dtype:
            self.weight = self.weight.to(x.dtype)
            self.bias = None if self.bias is None else self.bias.to(x.dtype)
        padding = self.padding if padding is None else padding
        geometry = padding, self.stride, self.dilation, self.groups
        if not self.is_packable:
            return torch.nn.functional.conv2d(
                x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
            )
        # The operators that torch.compile puts in for convolutions of frozen networks.
        onednn = torch.ops.mkldnn
        packed = self.packed
        if packed is None or packed[0] != x.shape:
            # oneDNN has several kernels and packings. Keeping one packing for all shapes would be up to a fifth slower,
            # and the last bits of a result would depend on which shape came first.
            weight = onednn._reorder_convolution_weight(self.weight, *geometry, list(x.shape))  # noqa: SLF001
            self.packed = packed = x.shape, weight
        answer: torch.Tensor = onednn._convolution_pointwise(  # noqa: SLF001
            x, packed[1], self.bias, *geometry, *self.activation
        )
        return answer


def fuse_convolutions(module: Any, run: "Callable[[], torch.Tensor]") -> "torch.Tensor":
    """Rewrites the convolutions that `run` passes through, and what follows them; returns what `run` gave before.

    Only forwards are replaced, on instances: weights, attributes and other instances stay. Call it outside inference
    mode.
    """
    watch = _Watch()
    found = watch.over(module, run)
    for convolution in watch.convolutions():
        norm = watch.next_to(convolution, _is_foldable)
        weight, bias = folded(convolution, norm)
        activation = watch.next_to(norm or convolution, _has_kernel) if can_pack(weight) else None
        convolution.forward = Convolution(convolution, weight, bias, _in_onednn(activation) or PLAIN)
        for absorbed in (norm, activation):
            if absorbed is not None:
                absorbed.forward = _same
    return found


def folded(convolution: Any, norm: Any | None) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """Weight and bias of a convolution that gives what `norm`, in evaluation, makes of its output."""
    weight, bias = convolution.weight.detach(), convolution.bias
    bias = None if bias is None else bias.detach()
    if norm is None:
        return weight, bias
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if bias is not None:
        shift = shift + bias.double()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), shift.to(weight.dtype)


def can_pack(weight: "torch.Tensor") -> bool:
    """Whether oneDNN's fused convolution runs with this weight."""
    import torch

    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and weight.device.type == "cpu" and weight.dtype == torch.float32


@dataclass
class _Watch:
    """Which modules of interest one pass went through, how often, and whose output went straight into which."""

    calls: Counter[Any] = field(default_factory=Counter)
    next: dict[Any, list[Any]] = field(default_factory=dict)
    made: dict[int, tuple[Any, Any, int]] = field(default_factory=dict)
    """id of a tensor -> a weak reference to it, the module that gave it, its version then."""

    def over(self, module: Any, run: "Callable[[], torch.Tensor]") -> "torch.Tensor":
        handles: list[Any] = []
        for child in module.modules():
            if _is_plain(child) and (_is_convolution(child) or _is_foldable(child) or _has_kernel(child)):
                handles.append(child.register_forward_pre_hook(self._entered))
                handles.append(child.register_forward_hook(self._left))
        try:
            return run()
        finally:
            for handle in handles:
                handle.remove()

    def convolutions(self) -> list[Any]:
        return [module for module in self.calls if _is_convolution(module)]

    def next_to(self, module: Any, wanted: Callable[[Any], bool]) -> Any | None:
        """The one module behind `module`, if it is of the wanted sort and nothing else uses either."""
        followers = self.next.get(module, [])
        if len(followers) != 1 or not wanted(followers[0]):
            return None
        return followers[0] if self.calls[module] == self.calls[followers[0]] == 1 else None

    def _entered(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self.calls[module] += 1
        reference, source, version = self.made.get(id(inputs[0]) if inputs else 0, (None, None, 0))
        # Another version: something in between, such as a residual, was added in place.
        if reference is not None and reference() is inputs[0] and inputs[0]._version == version:  # noqa: SLF001
            self.next.setdefault(source, []).append(module)

    def _left(self, module: Any, _inputs: tuple[Any, ...], output: Any) -> None:
        self.made[id(output)] = weakref.ref(output), module, output._version  # noqa: SLF001


def _is_plain(module: Any) -> bool:
    """No hooks (weight norm and the like) and no forward of its own."""
    return not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))  # noqa: SLF001


def _is_convolution(module: Any) -> bool:
    from torch import nn

    kind = type(module)
    is_wrapper = (kind.__module__, kind.__name__) == ("mmcv.cnn.bricks.wrappers", "Conv2d")
    # Other subclasses do more than a convolution.
    return (
        (kind is nn.Conv2d or is_wrapper)
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
    )


def _is_foldable(module: Any) -> bool:
    from torch import nn

    return type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm) and module.running_mean is not None


def _has_kernel(module: Any) -> bool:
    return _in_onednn(module) is not None


def _in_onednn(module: Any) -> Activation | None:
    from torch import nn

    kind = type(module)
    if kind in (nn.ReLU6, nn.Hardtanh):
        return "hardtanh", [module.min_val, module.max_val], ""
    if kind is nn.LeakyReLU:
        return "leaky_relu", [module.negative_slope], ""
    if kind is nn.GELU:
        return "gelu", [], module.approximate
    names = {nn.ReLU: "relu", nn.SiLU: "swish", nn.Hardswish: "hardswish", nn.Sigmoid: "sigmoid"}
    return (names[kind], [], "") if kind in names else None


def _same(x: "torch.Tensor") -> "torch.Tensor":
    return x
