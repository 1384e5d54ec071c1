"""What a run was computed with: versions, source revision, hardware; never the machine's name."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from common.exchange.fingerprint import code_fingerprint

PACKAGES = ("torch", "torchvision", "flwr", "numpy", "safetensors", "scikit-learn", "scipy")
ROOT = Path(__file__).resolve().parents[2]


def describe_environment() -> dict[str, Any]:
    """Return what ``environment.json`` holds.

    Returns
    -------
    dict
        Versions, git revision of the source, fingerprint of the code, operating system,
        processor, cores that this process may use, memory in GiB and GPU names. The host's name,
        its user and its paths are left out: a run's folder is handed on.
    """
    # A run's folder is read without PyTorch; only a new one asks what GPUs there are.
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "code_fingerprint": code_fingerprint(),
        "git": _git_revision(ROOT),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    """Return an installed package's version without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision(root: Path) -> dict[str, Any] | None:
    """Return revision and dirtiness of the repository whose top is ``root``, or None."""
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed copy may lie inside somebody else's repository, whose revision says nothing.
    if top is None or Path(top) != root:
        return None
    revision = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain")
    return None if revision is None else {"revision": revision, "dirty": changes != ""}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
