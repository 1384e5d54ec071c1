"""How fast images are decoded, by file format; two versions of the code side by side.

Files of 512 × 512 pixels are made, and decoded one after the other by one thread, as
``common.data.decode.decode_file`` does it in this checkout and, where another one is named, there.
The two take turns, each in a process of its own, and medians are reported: images per second of
processor time, which other work on the machine changes least.

    python -m simulations.evidence decoding --other /path/to/another/checkout
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pydicom
import typer
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from server.run_folder import describe_environment

HERE = Path(__file__).parents[3]
SIDE = 512
TIMED = """
import json, sys, time
from pathlib import Path
from common.config.schema import Config
from common.data.decode import decode_file
config, found = Config(), {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    files = sorted(folder.iterdir())
    decode_file(files[0], config)
    began = time.process_time()
    for file in files:
        decode_file(file, config)
    found[folder.name] = len(files) / (time.process_time() - began)
print(json.dumps(found))
"""


def _picture(number: int) -> NDArray[np.float64]:
    """Return greys in [0, 1] that look like a slice: smooth, with a little noise."""
    line = np.linspace(0, 6 + number % 5, SIDE)
    noise = np.random.default_rng(number).normal(0, 0.02, (SIDE, SIDE))
    return np.clip(np.outer(np.sin(line) ** 2, np.cos(line) ** 2) + noise, 0, 1)


def _ct(path: Path, values: NDArray[np.float64], **tags: Any) -> None:
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data: Any = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, "1.2.3", "CT"
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (values * 2000).astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def _eight(path: Path, values: NDArray[np.float64]) -> None:
    Image.fromarray((values * 255).astype(np.uint8)).save(path)


def _colour(path: Path, values: NDArray[np.float64]) -> None:
    Image.fromarray(np.dstack([(values * 255).astype(np.uint8)] * 3), "RGB").save(path)


def _sixteen(path: Path, values: NDArray[np.float64]) -> None:
    Image.fromarray((values * 4095).astype(np.uint16)).save(path)


FORMATS: dict[str, tuple[str, Callable[[Path, NDArray[np.float64]], None]]] = {
    "PNG, grey": ("png", _eight),
    "PNG, colour": ("png", _colour),
    "PNG, 16 bits": ("png", _sixteen),
    "JPEG": ("jpg", _eight),
    "CT, window of its own": (
        "dcm",
        lambda path, values: _ct(path, values, WindowCenter=40, WindowWidth=400),
    ),
    "CT without a window": ("dcm", _ct),
}


def _speeds(checkout: Path, images: Path) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TIMED, str(images)]
    done = subprocess.run(
        command, env=environment, cwd=images, check=True, capture_output=True, encoding="utf-8"
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(
    other: Annotated[
        Path | None, typer.Option(help="Another checkout, to be held against this one.")
    ] = None,
    files: Annotated[int, typer.Option(min=1, max=10_000, help="Files of each format.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each is timed.")] = 5,
) -> None:
    """Print images per second of processor time, median of the rounds."""
    checkouts = {"here": HERE} | ({"there": other.absolute()} if other is not None else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as name:
        for kind, (suffix, write) in FORMATS.items():
            folder = Path(name, kind)
            folder.mkdir()
            for number in range(files):
                write(folder / f"{number:04d}.{suffix}", _picture(number))
        for turn in range(rounds):
            # Whoever goes first finds the processor cooler.
            for which in sorted(checkouts, reverse=turn % 2 == 1):
                found[which].append(_speeds(checkouts[which], Path(name)))
    print(f"{describe_environment()['cpu']}, one thread, {files} files of each, {SIDE} × {SIDE}")
    print(f"{'':<24}" + "".join(f"{which:>10}" for which in checkouts) + "   here / there")
    for kind in FORMATS:
        speeds = {which: median(one[kind] for one in found[which]) for which in checkouts}
        ratio = f"{speeds['here'] / speeds['there']:>12.2f}" if other is not None else ""
        print(f"{kind:<24}" + "".join(f"{speed:>10.0f}" for speed in speeds.values()) + ratio)
