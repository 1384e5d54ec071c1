"""The commands of experiments, a file for each group, and what of theirs can be gone on with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class ResumeHint:
    """What the present command has begun, for the sentence that ends it early."""

    run: Path | None = None
    """Folder of the run that the command writes."""
    command: str = ""
    """How the run was started, such as ``"xsite train pooled"``."""
