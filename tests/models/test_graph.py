"""Networks made ready for inference give the same logits, and are run as they are where that cannot be."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from mad_backend.models.graph import InferenceGraph
from mad_backend.models.graph_convolutions import Convolution, can_pack
from tests.models.graph_checks import SIZE, called, check, equal, images, rewritten, settled

needs_onednn = pytest.mark.skipif(not can_pack(torch.ones(1)), reason="this torch has no oneDNN")


class Residual(nn.Module):
    """Adds in place between batch norm and an activation that is used nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        answer = self.second(features)
        answer += features
        logits: Tensor = self.head(self.activation(answer))
        return logits


class Shared(nn.Module):
    """One convolution at two scales, each with a batch norm of its own, and one activation for both."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.activation = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.activation(self.norms[0](self.convolution(x[:, :, ::2, ::2])))
        fine = self.activation(self.norms[1](self.convolution(x)))
        return fine + nn.functional.interpolate(coarse, fine.shape[2:])


class Skip(nn.Module):
    """The convolution's output is used beside batch norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        features = self.convolution(x)
        return features + self.norm(features).tanh()


class Same(nn.Conv2d):
    """A subclass that does more than a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1))) + 1


ACTIVATIONS: list[nn.Module] = [
    nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7), nn.LeakyReLU(0.1), nn.SiLU(), nn.Hardswish(),
    nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.ELU(), nn.PReLU(),
]  # fmt: skip


@needs_onednn
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_batch_norm_and_activation_go_into_the_convolution(activation: nn.Module) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        activation,
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16),
        nn.BatchNorm2d(16, affine=False),
        nn.Conv2d(16, 7, 1),
    )
    graph = check(settled(module))
    known = type(activation) not in (nn.ELU, nn.PReLU)
    assert len(rewritten(graph)) == 5 + known


@needs_onednn
def test_what_was_added_in_place_is_not_lost() -> None:
    graph = check(settled(Residual()))
    assert graph._twin.activation not in rewritten(graph)
    assert graph._twin.second[1] in rewritten(graph)


def test_a_convolution_with_two_batch_norms_keeps_them() -> None:
    graph = check(settled(Shared()))
    assert rewritten(graph) == [graph._twin.convolution]


def test_subclasses_and_hooked_convolutions_are_left_alone() -> None:
    hooked = nn.Conv2d(8, 8, 1)
    hooked.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 2,))
    module = nn.Sequential(
        Same(3, 8, 2),
        nn.BatchNorm2d(8),
        hooked,
        nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
    )
    assert rewritten(check(settled(module))) == []


def test_a_twin_that_differs_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    module = settled(Skip())
    graph = InferenceGraph("skip", module, called, SIZE)
    (image,) = images(SIZE)
    with caplog.at_level(logging.WARNING):
        found = graph(image)
        graph(image)
    assert equal(found, module(image))
    assert not graph.is_fused
    assert [r.getMessage() for r in caplog.records] == [caplog.records[0].getMessage()]
    assert 'model "skip" is run as it is: fused, its logits are off by' in caplog.text


def test_a_network_that_cannot_be_copied_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    module = settled(nn.Sequential(nn.Conv2d(3, 4, 1)))
    module.lock = (n for n in range(3))  # type: ignore[assignment] - generators refuse deepcopy
    graph = InferenceGraph("m", module, called, SIZE)
    (image,) = images(SIZE)
    assert equal(graph(image), module(image))
    assert 'model "m" is run as it is, not fused: cannot pickle' in caplog.text


def test_not_a_number_is_not_taken_for_equal() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    nn.init.constant_(module[0].weight, float("nan"))  # type: ignore[arg-type]
    graph = InferenceGraph("m", module.eval(), called, SIZE)
    assert graph(images(SIZE)[0]).isnan().all()
    assert not graph.is_fused


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_network_is_run_as_it_is() -> None:
    scripted = torch.jit.trace(settled(Residual()), images(SIZE)[0])
    graph = InferenceGraph("m", scripted, called, SIZE)
    (image,) = images(SIZE)
    assert equal(graph(image), scripted(image))
    assert not graph.is_fused


def test_an_image_has_the_same_logits_alone_in_a_batch_and_after_other_shapes() -> None:
    module = settled(Residual())
    one, two, wide = images(SIZE, SIZE, (33, 90))
    graph = InferenceGraph("m", module, called, SIZE)
    together = graph(torch.cat([one, two]))
    graph(wide)
    assert torch.equal(graph(two), together[1:])
    other = InferenceGraph("m", module, called, SIZE)
    assert torch.equal(other(wide), graph(wide))
    assert torch.equal(other(one), together[:1])


def test_threads_share_a_graph() -> None:
    module = settled(Residual())
    graph = InferenceGraph("m", module, called, SIZE)
    batches = images(*[(33 + n % 3, 40) for n in range(12)])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(graph, batches))
    assert all(torch.equal(one, graph(batch)) for one, batch in zip(found, batches, strict=True))


@pytest.mark.parametrize("module", [Residual(), Skip()], ids=["fused", "as it is"])
def test_half_precision_is_near_and_leaves_the_weights_alone(module: nn.Module) -> None:
    graph = InferenceGraph("m", settled(module), called, SIZE, "bf16")
    for image in images(SIZE, (40, 50)):
        found, expected = graph(image), module(image).detach()
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected)
        assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert graph.is_fused is isinstance(module, Residual)


def test_the_network_itself_stays_as_it_is_and_can_go_on_training() -> None:
    module = settled(Residual())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = InferenceGraph("m", module, called, SIZE)
    (image,) = images(SIZE)
    first = graph(image)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any("forward" in vars(child) for child in module.modules())
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module.train()
    module(images((33, 33))[0]).square().mean().backward()
    optimizer.step()
    module.eval()
    second = graph(image)
    assert not torch.allclose(first, second, atol=1e-3)
    assert equal(second, module(image))
    shared = {id(parameter) for parameter in module.parameters()}
    assert {id(parameter) for parameter in graph._twin.parameters()} == shared


def test_torchvision_like_blocks_without_onednn_are_folded_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    graph = check(settled(Residual()))
    kernels = [vars(module)["forward"] for module in rewritten(graph)]
    assert [k.packed for k in kernels if isinstance(k, Convolution)] == [None] * 3
    assert len(kernels) == 5  # three convolutions, two batch norms; activations stay
