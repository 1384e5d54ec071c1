"""DICOM files: their header, their patient, their frames, and the pixels of one."""

import io
from pathlib import Path
from typing import Any, NamedTuple

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
from common.data.scale import Greys
from common.errors import SiteError

DICOM_EXTRA = "pip install 'xsite[dicom]'"
"""Installs decoders of what most archives deliver."""
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class ImageHeader(NamedTuple):
    """What a file says of itself."""

    width: int
    height: int
    """In pixels."""
    kind: str
    """Its format and colours, as 'PNG (L)'."""
    frames: int = 1
    """How many images it holds."""


def is_dicom(content: bytes) -> bool:
    """Return whether a file of which these are the first bytes is a DICOM file."""
    return content[128:132] == b"DICM"


def dicom_header(content: bytes, path: Path) -> ImageHeader:
    """Read size, kind and number of frames of a DICOM file's pixels.

    Raises
    ------
    SiteError
        If it has none.
    """
    data = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    if "Rows" not in data or "Columns" not in data:
        raise SiteError(
            f"{path} is a DICOM file without pixels (a report or a structured object, say). "
            "Move it away."
        )
    mode = f"{data.get('PhotometricInterpretation', '?')}, {data.get('BitsStored', '?')} bits"
    return ImageHeader(int(data.Columns), int(data.Rows), f"DICOM ({mode})", _frames(data))


def _frames(data: pydicom.Dataset) -> int:
    return int(data.get("NumberOfFrames", 1) or 1)


def dicom_patient(path: Path) -> str | None:
    """Return the patient id in a DICOM file's header, None where there is none or no DICOM."""
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                return None
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(data.get("PatientID", "")).strip() or None
    # pydicom raises whatever a damaged header leads it to; decoding the file will say so.
    except Exception:
        return None


def open_dicom(content: bytes, path: Path) -> pydicom.Dataset:
    """Read a DICOM file whose frames :func:`read_frame` decodes.

    Raises
    ------
    SiteError
        If it has no pixels. A damaged file raises whatever it leads pydicom to.
    """
    data = pydicom.dcmread(io.BytesIO(content))
    if not any(tag in data for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise SiteError(f"{path} is a DICOM file without pixels. Move it away.")
    return data


def read_frame(
    data: pydicom.Dataset, frame: int, path: Path, config: ImageKeys
) -> Image.Image | Greys:
    """Decode one frame as the file says that its values are shown.

    Parameters
    ----------
    data : Dataset
        The file.
    frame : int
        Which frame, from 1.
    path : Path
        For the error's sentence.
    config : ImageKeys
        The window for Hounsfield units without a window of their own.

    Returns
    -------
    Image or Greys
        An RGB image of 8 bits, or greys.

    Raises
    ------
    SiteError
        If the pixels are of a kind that is not read. A damaged file raises whatever it leads
        pydicom to.
    """
    kind = str(data.get("PhotometricInterpretation", ""))
    values = _pixels(data, frame, path)
    if int(data.get("SamplesPerPixel", 1)) == 3:
        return Image.fromarray(_colours(values, kind, path), "RGB")
    if kind == "PALETTE COLOR":
        return Image.fromarray(_palette(values, data, path), "RGB")
    return shown_greys(values, data, frame, path, config)


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
