"""Small networks as a user's own package would have them, some of which fail as networks do."""

import torch
from torch import nn


class SmallNet(nn.Module):
    """Two convolutions around a batch norm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, num_classes, 1),
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layers(batch)


class HungryNet(SmallNet):
    """Has memory for the gradients of one image at a time."""

    most = 1

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(batch) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(batch)}.00 GiB.")
        return super().forward(batch)


class StarvingNet(HungryNet):
    """Has memory for no gradients at all, on a CPU."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 64 bytes."
            )
        return super().forward(batch)
