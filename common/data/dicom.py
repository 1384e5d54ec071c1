"""DICOM files: their header, their patient, and their pixels with rescale and window applied."""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import apply_rescale

from common.errors import SiteError


def finite(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the values of an image's pixels if all are finite.

    Raises
    ------
    SiteError
        If one is not: nobody can say how bright it is.
    """
    if not np.isfinite(values).all():
        raise SiteError(f"{path} holds values that are not finite. Export it again.")
    return values


class ImageHeader(NamedTuple):
    """What a file says of itself: width and height in pixels, and its kind, as 'PNG (L)'."""

    width: int
    height: int
    kind: str


def dicom_header(content: bytes, path: Path) -> ImageHeader:
    """Read width, height and kind of a DICOM file's pixels.

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
    return ImageHeader(int(data.Columns), int(data.Rows), f"DICOM ({mode})")


def patient_id(path: Path) -> str | None:
    """Return the patient id in a DICOM file's header, None where there is none."""
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(data.get("PatientID", "")).strip() or None
    # pydicom raises whatever a damaged header leads it to; decoding the file will say so.
    except Exception:
        return None


def dicom_image(content: bytes, path: Path, window: tuple[float, float]) -> Image.Image:
    """Decode a DICOM file, rescale and window applied; the middle frame of several.

    Parameters
    ----------
    content : bytes
        The file.
    path : Path
        For the error's sentence.
    window : tuple of float
        Centre and width in Hounsfield units, for files without a window of their own.

    Raises
    ------
    SiteError
        If it has no pixels, or these are of a kind that is not read. A damaged file raises whatever
        it leads pydicom to.
    """
    data = pydicom.dcmread(io.BytesIO(content))
    if not any(tag in data for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise SiteError(f"{path} is a DICOM file without pixels. Move it away.")
    kind = str(data.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        raise SiteError(f"{path} has pixels of the kind PALETTE COLOR. Export it as grey or RGB.")
    pixels = _pixels(data, path)
    if int(data.get("NumberOfFrames", 1) or 1) > 1:
        pixels = pixels[len(pixels) // 2]
    if int(data.get("SamplesPerPixel", 1)) == 3:
        if pixels.dtype != np.uint8:
            bits = 8 * pixels.dtype.itemsize
            raise SiteError(f"{path} has {bits}-bit colours. Export it as grey, or 8-bit RGB.")
        if kind.startswith("YBR"):
            return Image.fromarray(pixels, "YCbCr").convert("RGB")
        return Image.fromarray(pixels, "RGB")
    values = finite(np.asarray(apply_rescale(pixels, data), dtype=np.float64), path)
    center, width = _window(data) or window
    grey = np.clip((values - (center - width / 2)) / width, 0, 1) * 255
    if kind == "MONOCHROME1":
        grey = 255 - grey
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _pixels(data: pydicom.Dataset, path: Path) -> NDArray[Any]:
    """Return the stored values, shape (frames, height, width, samples) without what is 1."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    try:
        return np.asarray(data.pixel_array)
    except Exception as error:
        if syntax is None or not syntax.is_transfer_syntax or not syntax.is_compressed:
            raise
        raise SiteError(
            f"{path} is compressed ({syntax.name}) and cannot be decoded here. Export it again, "
            "uncompressed, or move it away."
        ) from error


def _window(data: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the file's first window where it has a usable one."""
    center, width = data.get("WindowCenter"), data.get("WindowWidth")
    if center is None or width is None:
        return None
    first = [
        float(v[0] if isinstance(v, list | pydicom.multival.MultiValue) else v)
        for v in (center, width)
    ]
    return (first[0], first[1]) if first[1] > 0 and all(map(math.isfinite, first)) else None
