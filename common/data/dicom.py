"""DICOM files: their header, their patient, and their pixels with rescale and window applied.

Imported where a DICOM file is met: pydicom takes a second, and most sites have none.
"""

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_rescale

from common.errors import SiteError


def dicom_header(content: bytes, path: Path) -> tuple[int, int, str]:
    """Read width, height and kind of a DICOM file's pixels.

    Raises
    ------
    SiteError
        If it has none or is damaged.
    """
    data = _read_dicom(content, path, stop_before_pixels=True)
    if "Rows" not in data or "Columns" not in data:
        raise SiteError(
            f"{path} is a DICOM file without pixels (a report or a structured object, say). "
            "Move it away."
        )
    bits = data.get("BitsStored", "?")
    mode = f"{data.get('PhotometricInterpretation', '?')}, {bits} bits"
    return int(data.Columns), int(data.Rows), mode


def patient_id(path: Path) -> str | None:
    """Return the patient id in a DICOM file's header, None where there is none."""
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
    except (InvalidDicomError, OSError, AttributeError, ValueError):
        return None
    return str(data.get("PatientID", "")).strip() or None


def _read_dicom(content: bytes, path: Path, stop_before_pixels: bool) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(content), stop_before_pixels=stop_before_pixels)
    except Exception as error:
        raise SiteError(
            f"{path} is a damaged DICOM file ({type(error).__name__}). "
            "Export it again or move it away."
        ) from error


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
        If it has no pixels or is damaged.
    """
    data = _read_dicom(content, path, stop_before_pixels=False)
    if not any(tag in data for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise SiteError(f"{path} is a DICOM file without pixels. Move it away.")
    pixels = np.asarray(data.pixel_array)
    if int(data.get("NumberOfFrames", 1) or 1) > 1:
        pixels = pixels[len(pixels) // 2]
    if int(data.get("SamplesPerPixel", 1)) == 3:
        if str(data.get("PhotometricInterpretation", "")).startswith("YBR"):
            return Image.fromarray(pixels.astype(np.uint8), "YCbCr").convert("RGB")
        return Image.fromarray(pixels.astype(np.uint8), "RGB")
    values = np.asarray(apply_rescale(pixels, data), dtype=np.float64)
    center, width = _window(data) or window
    grey = np.clip((values - (center - width / 2)) / width, 0, 1) * 255
    if data.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _window(data: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the file's first window where it has a usable one."""
    center, width = data.get("WindowCenter"), data.get("WindowWidth")
    if center is None or width is None:
        return None
    first = [
        float(v[0] if isinstance(v, list | pydicom.multival.MultiValue) else v)
        for v in (center, width)
    ]
    return (first[0], first[1]) if first[1] > 0 else None
