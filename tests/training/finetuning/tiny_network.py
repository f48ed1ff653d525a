"""A network as somebody might bring their own: a class, a function, and answers in several forms."""

from typing import Any

import torch


class TinyNet(torch.nn.Module):
    """A stride of 2, batch norm and dropout in the body, one layer as head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout2d(0.5),
        )
        self.head = torch.nn.Conv2d(8, num_classes, 1)

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.body(images))


class PlainNet(TinyNet):
    """Without batch norm and dropout: every image on its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.body = torch.nn.Sequential(self.body[0], self.body[2])


class DictNet(TinyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return {"out": super().forward(images), "aux": None}


class TupleNet(TinyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images), None


def of_eight() -> torch.nn.Module:
    return TinyNet(8)


def by_position(outputs: int, /) -> torch.nn.Module:
    return TinyNet(outputs)


def of_two_needs(num_classes: int, width: int) -> torch.nn.Module:
    return TinyNet(num_classes + width)


def flat(num_classes: int) -> torch.nn.Module:
    return torch.nn.Flatten()


def no_network() -> str:
    return "a word"
