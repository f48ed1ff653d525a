"""Blocks of known libraries, made to do the same with less work; told by name, never imported."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mad_backend.models.graph_convolutions import Convolution, folded

if TYPE_CHECKING:
    import torch


def simplify_blocks(module: Any) -> None:
    """Replaces forwards of known blocks on the instances below `module`, whose convolutions are fused already."""
    from torch import nn

    rewrites: dict[tuple[str, str], Callable[[Any], None]] = {
        ("transformers", "MobileNetV1ConvLayer"): _pad_inside,
        ("transformers", "MobileNetV2ConvLayer"): _pad_inside,
        ("transformers", "MobileNetV2ForSemanticSegmentation"): _leave_out_classifier,
        ("transformers", "SegformerDecodeHead"): _rewrite_transformers_head,
        ("segmentation_models_pytorch", "SegformerDecoder"): _rewrite_smp_decoder,
        ("mmseg", "SegformerHead"): _rewrite_mmseg_head,
    }
    for block in list(module.modules()):
        kind = type(block)
        if kind is nn.MultiheadAttention:
            # Callers that do not say so ask for the attention weights, and nobody reads them.
            block.forward = partial(block.forward, need_weights=False)
        rewrite = rewrites.get((kind.__module__.partition(".")[0], kind.__name__))
        if rewrite is not None and "forward" not in vars(block):
            rewrite(block)


def _pad_inside(layer: Any) -> None:
    """TensorFlow's padding by the convolution itself, without a padded copy, where it is the same on both sides."""
    convolution = layer.convolution
    if not (layer.config.tf_padding and isinstance(convolution.forward, Convolution)):
        return
    plain = layer.forward

    def forward(features: "torch.Tensor") -> "torch.Tensor":
        sizes, kernels, strides = features.shape[2:], convolution.kernel_size, convolution.stride
        missing = [
            max(kernel - (size % stride or stride), 0)
            for size, kernel, stride in zip(sizes, kernels, strides, strict=True)
        ]
        if any(length % 2 for length in missing):
            answer: torch.Tensor = plain(features)
            return answer
        halves = [length // 2 * step for length, step in zip(missing, convolution.dilation, strict=True)]
        features = convolution(features, halves)
        for follower in (layer.normalization, layer.activation):
            if follower is not None:
                features = follower(features)
        return features

    layer.forward = forward


def _leave_out_classifier(model: Any) -> None:
    """The last convolution of the backbone is there for ImageNet's classes: computed, but not read."""
    model.mobilenet_v2.conv_1x1.forward = lambda features: features


def _rewrite_transformers_head(head: Any) -> None:
    """SegFormer, as `_projections` describes."""
    linears = [projection.proj for projection in head.linear_projections]
    # Stages are concatenated last first.
    convolutions = _projections(head.linear_fuse, head.batch_norm, linears[::-1])[::-1]
    plain = head.forward

    def forward(encoder_hidden_states: Any, **options: Any) -> "torch.Tensor":
        logits: torch.Tensor
        if any(state.ndim != 4 for state in encoder_hidden_states):
            logits = plain(encoder_hidden_states, **options)
        else:
            logits = head.classifier(_fused(convolutions, encoder_hidden_states))
        return logits

    head.forward = forward


def _rewrite_smp_decoder(decoder: Any) -> None:
    """SegFormer, as `_projections` describes."""
    convolution, norm, _activation = decoder.fuse_stage
    convolutions = _projections(convolution, norm, [stage.linear for stage in decoder.mlp_stage])[::-1]

    def forward(features: Any) -> "torch.Tensor":
        return _fused(convolutions, features[-len(convolutions) :])

    decoder.forward = forward


def _projections(fusion: Any, norm: Any, linears: Sequence[Any]) -> list[Convolution]:
    """For each linear layer in the order of concatenation, a 1 x 1 convolution that projects and fuses.

    SegFormer projects every stage, upsamples, concatenates and fuses them with a 1 x 1 convolution. All of that is
    linear: one small matrix for each stage, applied before upsampling, gives the same with a fraction of the work.
    """
    weight, shift = folded(fusion, norm)
    assert shift is not None
    bias, convolutions = shift.double(), []
    for linear, part in zip(linears, weight.double().chunk(len(linears), dim=1), strict=True):
        matrix = part[:, :, 0, 0]
        bias = bias + matrix @ linear.bias.detach().double()
        product = (matrix @ linear.weight.detach().double()).to(weight.dtype)
        convolutions.append(Convolution(fusion, product[:, :, None, None], None))
    convolutions[0].bias = bias.to(weight.dtype)
    return convolutions


def _rewrite_mmseg_head(head: Any) -> None:
    """SegFormer with an activation after projection: the fusion alone is taken at low resolution."""
    from torch import nn

    fusion = head.fusion_conv
    if head.interpolate_mode != "bilinear" or type(fusion.activate) is not nn.ReLU:
        return
    weight, bias = folded(fusion.conv, fusion.norm)
    parts = weight.chunk(len(head.convs), dim=1)
    shares = [Convolution(fusion.conv, part, bias if n == 0 else None) for n, part in enumerate(parts)]

    def forward(inputs: Any) -> "torch.Tensor":
        stages = head._transform_inputs(inputs)  # noqa: SLF001 - what the head's own forward begins with
        projected = [convolution(stage) for convolution, stage in zip(head.convs, stages, strict=True)]
        logits: torch.Tensor = head.cls_seg(_fused(shares, projected, align_corners=head.align_corners))
        return logits

    head.forward = forward


def _fused(
    convolutions: Sequence[Convolution], stages: "Sequence[torch.Tensor]", *, align_corners: bool = False
) -> "torch.Tensor":
    """(n, C, h, w) of the first stage's size: each stage's convolution, upsampled; their sum, rectified."""
    from torch.nn.functional import interpolate

    total, *others = (convolution(stage) for convolution, stage in zip(convolutions, stages, strict=True))
    for other in others:
        total += interpolate(other, total.shape[2:], mode="bilinear", align_corners=align_corners)
    return total.relu_()
