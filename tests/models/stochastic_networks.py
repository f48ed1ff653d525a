"""Networks of three classes with dropout whose every outcome can be listed: either all features are there, or none."""

from torch import Tensor, nn
from torch.nn import functional

SHARE = 0.4


class OneFeature(nn.Module):
    """One feature, which dropout takes or leaves, and the last layer."""

    def __init__(self, share: float = SHARE) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))
        self.dropout = nn.Dropout2d(share)
        self.head = nn.Conv2d(1, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.feature(images)))


class Functional(OneFeature):
    """The same, asked for by a function and followed by more than the last layer."""

    def forward(self, images: Tensor) -> Tensor:
        features = functional.dropout2d(self.feature(images), SHARE, training=self.training)
        return functional.interpolate(self.head(features), scale_factor=2)


class Enlarged(OneFeature):
    """The same, the scores enlarged as most heads do."""

    def __init__(self, aligned: bool) -> None:
        super().__init__()
        self.aligned = aligned

    def forward(self, images: Tensor) -> Tensor:
        return functional.interpolate(
            super().forward(images), scale_factor=4, mode="bilinear", align_corners=self.aligned
        )


class EnlargedToTheInput(OneFeature):
    """At a quarter of the size, enlarged to that of the input, which four need not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.feature[0].stride = (4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return functional.interpolate(super().forward(images), images.shape[-2:], mode="bilinear")


def enlarged_by_corners() -> nn.Module:
    return Enlarged(aligned=True)


def enlarged_by_centres() -> nn.Module:
    return Enlarged(aligned=False)


def without_dropout() -> nn.Module:
    return OneFeature(0.0)


def hardly_any_dropout() -> nn.Module:
    return OneFeature(1e-9)


class WithAuxiliary(OneFeature):
    """A second head, which answers after the first."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.aux_head = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images), self.aux_head(images)


class WithoutConvolution(nn.Module):
    """Scores by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
