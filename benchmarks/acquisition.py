"""Entropy, margin and BALD's mutual information by an FPN with dropout, beside passes of the whole network."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.figure import median_rate, print_figure
from mad_backend.core.grid import Grid
from mad_backend.core.records import Frame
from mad_backend.models.acquisition import Acquirer
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.settings import ModelSettings
from mad_backend.settings_file import load_label_set

LABEL_SET = Path(__file__).parents[1] / "configs" / "label_sets" / "voc.yaml"
CLASSES, SIDE, PASSES, IMAGES = 21, 320, 20, 4


def network() -> nn.Module:
    """As in Experiment B, with weights of chance: dropout before the last layer, whose scores are enlarged by 4."""
    define_missing_operators()  # timm imports torchvision
    import segmentation_models_pytorch as smp

    return smp.FPN("timm-tf_efficientnet_lite0", encoder_weights=None, classes=CLASSES)


def main() -> None:
    """One thread; images per second of process time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = ModelSettings(kind="benchmarks.acquisition:network")
    model = load_model("f", settings, load_label_set(LABEL_SET), Grid(SIDE))
    if not isinstance(model, TorchModel):
        raise TypeError(f"wanted a network of PyTorch, got {model}")
    rng = np.random.default_rng(0)
    frames = [
        Frame(str(n), rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (SIDE, SIDE)) for n in range(IMAGES)
    ]
    for passes in (0, PASSES):
        acquirer = Acquirer(model, passes)
        ours = median_rate(partial(acquirer, frames), IMAGES, 3)
        peer = median_rate(partial(_passes_of_all, model, frames, passes), IMAGES, 3)
        print_figure(
            f"entropy, margin and embedding of FPN at {SIDE} px" + (", and BALD" if passes else ""),
            "images/s",
            ours,
            peer,
            f"{passes} passes of the whole network in PyTorch" if passes else "one pass of it in PyTorch",
            3.0 if passes else 1.0,
        )


def _passes_of_all(model: TorchModel, frames: Sequence[Frame], passes: int) -> list[float]:
    """What papers' code does (Gal et al. 2017): dropout alone in train mode, every pass through all of the network."""
    module = model.module.eval()
    answers = []
    with torch.inference_mode():
        for frame in frames:
            batch = model.batch([model.canvas.content(frame.rgb)])
            probabilities = [module(batch).softmax(1)]
            for layer in module.modules():
                layer.train(isinstance(layer, nn.Dropout | nn.Dropout2d) and passes > 0)
            probabilities += [module(batch).softmax(1) for _ in range(passes)]
            module.eval()
            mean = torch.stack(probabilities[-max(1, passes) :]).mean(0)
            answers.append(float(torch.special.entr(mean).sum(1).mean()))
            answers += [float(torch.special.entr(one).sum(1).mean()) for one in probabilities]
    return answers


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
