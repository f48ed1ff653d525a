"""Which code ran on what: versions of this package and of its libraries, and facts of the machine."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

PACKAGE = "mad-segmentation"
ROOT = Path(__file__).parents[2]
OUR_CODE = ("mad_backend", "sync", "training")

LIBRARIES = (
    "torch", "numpy", "mmengine", "mmseg", "mmcv", "transformers", "torchvision", "segmentation_models_pytorch",
    "safetensors", "PIL", "cv2",
)  # fmt: skip
"""Modules that have a part in the numbers; those that are not loaded had none."""

GIT_TIMEOUT_S = 20


@dataclass(frozen=True)
class CodeVersion:
    """`commit` and `is_dirty` (our code differs from the commit) are None outside a git checkout."""

    version: str
    commit: str | None = None
    is_dirty: bool | None = None


@dataclass(frozen=True)
class Machine:
    """What decides how sums round: the same facts and the same seed give the same weights."""

    device: str
    cpu: str
    cpus: int
    threads: int
    system: str
    cuda: str | None
    cudnn: int | None
    deterministic: bool
    tf32: bool


def code_version(root: Path = ROOT) -> CodeVersion:
    """Of this package in `root`; asks git where that is a checkout, without running what the checkout configures."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    if not (root / ".git").exists():
        return CodeVersion(version)
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *OUR_CODE)
    return CodeVersion(version, commit, None if changes is None else bool(changes))


def library_versions() -> dict[str, str]:
    """Python's, and those of the libraries that are loaded, by module."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in LIBRARIES}
    return {"python": platform.python_version()} | {name: str(v) for name, v in loaded.items() if v}


def machine(device: torch.device, threads: int | None) -> Machine:
    """Of this process, which works on `device`; `threads` as settings fix them."""
    is_cuda = device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(device) if is_cuda else device.type,
        cpu=_cpu(),
        cpus=os.cpu_count() or 1,
        threads=threads or torch.get_num_threads(),
        system=platform.platform(),
        cuda=torch.version.cuda if is_cuda else None,
        cudnn=torch.backends.cudnn.version() if is_cuda else None,  # type: ignore[no-untyped-call]
        deterministic=torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic,
        tf32=torch.backends.cuda.matmul.allow_tf32,
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or None: no git, a checkout of somebody else's, a broken one."""
    git = shutil.which("git")
    if git is None:
        return None
    # A checkout's configuration may name programs: hooks, and a monitor that `status` would start.
    safe = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    try:
        answer = subprocess.run(
            [git, "--no-optional-locks", *safe, "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
