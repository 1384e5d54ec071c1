"""DICOM files: their header, their patient, their frames, and the pixels of one."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from common.config.sections import ImageKeys
from common.data.dicom_greys import shown_greys
from common.data.raster import ImageHeader
from common.data.scale import Greys
from common.errors import SiteError

DICOM_EXTRA = "pip install 'xsite[dicom]'"
"""Installs decoders of what most archives deliver."""
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file; a damaged one raises whatever it leads pydicom to."""

    content: bytes
    """The file."""
    path: Path
    """For the error's sentence."""

    def header(self) -> ImageHeader:
        """Read size, kind and number of frames of the pixels.

        Raises
        ------
        SiteError
            If there are none.
        """
        data = pydicom.dcmread(io.BytesIO(self.content), stop_before_pixels=True)
        if "Rows" not in data or "Columns" not in data:
            raise SiteError(
                f"{self.path} is a DICOM file without pixels (a report or a structured object, "
                "say). Move it away."
            )
        mode = f"{data.get('PhotometricInterpretation', '?')}, {data.get('BitsStored', '?')} bits"
        frames = int(data.get("NumberOfFrames", 1) or 1)
        return ImageHeader(int(data.Columns), int(data.Rows), f"DICOM ({mode})", frames)

    def patient(self) -> str | None:
        """Return the patient id in the header, None where there is none."""
        content = io.BytesIO(self.content)
        data = pydicom.dcmread(content, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(data.get("PatientID", "")).strip() or None

    def pictures(self, frames: Iterable[int], config: ImageKeys) -> Iterator[Image.Image | Greys]:
        """Decode frames as the file says that its values are shown.

        Parameters
        ----------
        frames : iterable of int
            Which, from 1.
        config : ImageKeys
            The window for Hounsfield units without a window of their own.

        Yields
        ------
        Image or Greys
            An RGB image of 8 bits, or greys.

        Raises
        ------
        SiteError
            If there are no pixels, or they are of a kind that is not read.
        """
        data = pydicom.dcmread(io.BytesIO(self.content))
        if not any(tag in data for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise SiteError(f"{self.path} is a DICOM file without pixels. Move it away.")
        kind = str(data.get("PhotometricInterpretation", ""))
        for frame in frames:
            values = _pixels(data, frame, self.path)
            if int(data.get("SamplesPerPixel", 1)) == 3:
                yield Image.fromarray(_colours(values, kind, self.path), "RGB")
            elif kind == "PALETTE COLOR":
                yield Image.fromarray(_palette(values, data, self.path), "RGB")
            else:
                yield shown_greys(values, data, frame, self.path, config)


def _pixels(data: pydicom.Dataset, frame: int, path: Path) -> NDArray[Any]:
    """Return a frame's values, shape (height, width) or (height, width, 3), colours as RGB."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    compressed = syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed
    # Old files may keep the bits that count at the upper end.
    above = (
        0 if compressed else int(data.get("HighBit") or 0) + 1 - int(data.get("BitsStored") or 1)
    )
    try:
        if above <= 0 or "PixelData" not in data:
            return np.asarray(pixel_array(data, index=frame - 1))
        values = np.asarray(pixel_array(data, index=frame - 1, correct_unused_bits=False))
    except Exception as error:
        if not compressed:
            raise
        advice = "Export it again, uncompressed, or move it away."
        if not _decoder_is_here(syntax):
            advice = f"A decoder is missing: {DICOM_EXTRA}. Or export it again, uncompressed."
        raise SiteError(
            f"{path} is compressed ({syntax.name}) and cannot be decoded here. {advice}"
        ) from error
    unused = int(data.BitsAllocated) - 1 - int(data.HighBit)
    return (values << unused) >> (int(data.BitsAllocated) - int(data.BitsStored))


def _decoder_is_here(syntax: UID) -> bool:
    """Return whether a library that decodes a transfer syntax is installed, if there is any."""
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return True


def _colours(values: NDArray[Any], kind: str, path: Path) -> NDArray[np.uint8]:
    """Return colours that pydicom has made RGB of, shape (height, width, 3)."""
    if kind not in COLOURS:
        raise SiteError(f"{path} has pixels of the kind {kind}. Export it as grey or RGB.")
    if values.dtype != np.uint8:
        bits = 8 * values.dtype.itemsize
        raise SiteError(f"{path} has {bits}-bit colours. Export it as grey, or 8-bit RGB.")
    return values


def _palette(values: NDArray[Any], data: pydicom.Dataset, path: Path) -> NDArray[np.uint8]:
    """Return the colours that values are numbers of, shape (height, width, 3)."""
    try:
        colours = apply_color_lut(values, data)[..., :3]
    except Exception as error:
        raise SiteError(
            f"{path} has pixels of the kind PALETTE COLOR and no palette. Export it as grey or RGB."
        ) from error
    # A palette's entries have 8 or 16 bits.
    return (colours >> 8 * (colours.dtype.itemsize - 1)).astype(np.uint8)
