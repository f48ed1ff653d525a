"""Random numbers of one augmentation, the same in whichever process it is made."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Python's, numpy's and PyTorch's global CPU generators start from `seed`, and go on as before afterwards.

    mmcv's transforms draw from numpy's, torchvision's from PyTorch's; dropout must not depend on where images are read.
    """
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
