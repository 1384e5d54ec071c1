"""From a DICOM file's stored grey values to greys as it says that they are shown.

The order is the standard's (PS3.4 N.2): the modality's transformation, the values of interest, the
presentation. An enhanced object says the first two in functional groups: a frame's, or all frames'.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from common.config.sections import ImageKeys
from common.data.raster import finite
from common.data.scale import Greys, Scale, distinct, window_in_words
from common.errors import SiteError

CT = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SHOWN = Scale(0.0, 1.0)
"""Of values that a window or a table has made what is shown."""


def shown_greys(
    stored: NDArray[Any], data: Dataset, frame: int, path: Path, config: ImageKeys
) -> Greys:
    """Return the greys of a frame.

    Parameters
    ----------
    stored : ndarray, shape (height, width)
        The stored values.
    data : Dataset
        The file.
    frame : int
        Which frame, from 1.
    path : Path
        For the error's sentence.
    config : ImageKeys
        The window for Hounsfield units without one of their own.

    Returns
    -------
    Greys
        With a scale of their own if the file has a window, a table, or no more than 8 bits, or if
        they are Hounsfield units; else without one.

    Raises
    ------
    SiteError
        If a value is not finite, or the file makes one value of all.
    """
    modality = _said(data, frame, "PixelValueTransformationSequence", "RescaleSlope")
    interest = _said(data, frame, "FrameVOILUTSequence", "WindowCenter")
    possible = _possible(stored.dtype.kind, modality, data)
    hounsfield = _in_hounsfield_units(possible, modality, data)
    padding, (stored, places) = _padding(stored.dtype, data), distinct(stored)
    values = finite(_transformed(stored, modality, data), path)
    if float(modality.get("RescaleSlope", 1)) == 0:
        raise SiteError(f"{path} makes one value of all (its rescale slope is 0). Export it again.")
    table, window = _first(interest, "VOILUTSequence"), _window(interest)
    scale: Scale | None = SHOWN
    if table is not None:
        said = "the file's own table"
        values = _looked_up(values, table, data)
    elif window is not None:
        said = f"the file's own window, {window_in_words(*window)}"
        values = _through_window(values, *window, str(interest.get("VOILUTFunction", "LINEAR")))
    elif hounsfield:
        said = f"window {window_in_words(config.window_center, config.window_width)} HU"
        values = _through_window(values, config.window_center, config.window_width)
    else:
        scale = possible if int(data.get("BitsStored", 16)) <= 8 else None
        said = "" if scale is None else f"{scale}, all that the file's bits can hold"
    inverted = (
        data.get("PhotometricInterpretation") == "MONOCHROME1"
        or data.get("PresentationLUTShape") == "INVERSE"
    )
    background = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    return Greys(values, scale, inverted, background, possible, places=places, said=said)


def _first(data: Dataset, sequence: str) -> Dataset | None:
    """Return the first item of a sequence, None where there is none."""
    items = data.get(sequence)
    return items[0] if items else None


def _said(data: Dataset, frame: int, macro: str, tag: str) -> Dataset:
    """Return where a frame's values are explained: its group, all frames', or the file's root."""
    frames = data.get("PerFrameFunctionalGroupsSequence") or []
    groups = [frames[frame - 1]] if frame <= len(frames) else []
    if (shared := _first(data, "SharedFunctionalGroupsSequence")) is not None:
        groups.append(shared)
    found = (_first(group, macro) for group in groups)
    return next((item for item in found if item is not None and tag in item), data)


def _transformed(stored: NDArray[Any], modality: Dataset, data: Dataset) -> NDArray[Any]:
    """Return what the modality's table or rescale makes of stored values, in its units."""
    if (table := _first(modality, "ModalityLUTSequence")) is not None:
        first, entries, _ = _entries(table, data)
        return entries[np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)]
    if "RescaleSlope" not in modality and "RescaleIntercept" not in modality:
        return stored
    slope, intercept = modality.get("RescaleSlope", 1), modality.get("RescaleIntercept", 0)
    return stored * float(slope) + float(intercept)


def _possible(kind: str, modality: Dataset, data: Dataset) -> Scale | None:
    """Return what the bits that the file names could hold, transformed; None of real numbers."""
    if kind == "f":
        return None
    if (table := _first(modality, "ModalityLUTSequence")) is not None:
        return Scale(0.0, 2.0 ** _entries(table, data)[2] - 1)
    bits = int(data.BitsStored)
    lowest = -(2 ** (bits - 1)) if kind == "i" else 0
    ends = np.array([lowest, lowest + 2**bits - 1], dtype=np.int64)
    return Scale(*sorted(float(end) for end in _transformed(ends, modality, data)))


def _entries(table: Dataset, data: Dataset) -> tuple[int, NDArray[np.uint16], int]:
    """Return a table's first value, its entries, and how many bits these have (PS3.3 C.11.1.1)."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    held = table.LUTData
    if isinstance(held, bytes):
        wide = len(held) >= 2 * (count or 2**16)
        order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
        entries = np.frombuffer(held, f"{order}u2" if wide else "u1")
    else:
        entries = np.asarray(held)
    return first, entries[: count or 2**16].astype(np.uint16), bits


def _looked_up(values: NDArray[Any], table: Dataset, data: Dataset) -> NDArray[np.float64]:
    """Return values through a table of values of interest, in [0, 1]."""
    first, entries, bits = _entries(table, data)
    place = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    return np.asarray(entries[place] / (2.0**bits - 1), dtype=np.float64)


def _window(interest: Dataset) -> tuple[float, float] | None:
    """Return centre and width of the first window where it is usable."""
    said = (interest.get("WindowCenter"), interest.get("WindowWidth"))
    if None in said:
        return None
    center, width = (float(v[0] if isinstance(v, list | MultiValue) else v) for v in said)
    return (center, width) if width > 0 and math.isfinite(center) and math.isfinite(width) else None


def _through_window(
    values: NDArray[Any], center: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64]:
    """Return values through a window, in [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)), dtype=np.float64)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    # Whole numbers from c − 0.5 − (w − 1)/2 to c − 0.5 + (w − 1)/2; one of width 1 is a threshold.
    return np.clip((values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def _in_hounsfield_units(possible: Scale | None, modality: Dataset, data: Dataset) -> bool:
    """Return whether values are Hounsfield units: said so, or a CT that says no other unit."""
    if unit := str(modality.get("RescaleType") or ""):
        return unit == "HU"
    of_class = data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID")
    is_ct = data.get("Modality") == "CT" if data.get("Modality") else of_class in CT
    # What can hold no air is a screenshot, or counts from another zero.
    return bool(is_ct) and (possible is None or possible.low < 0)


def _padding(kind: np.dtype[Any], data: Dataset) -> tuple[Any, Any] | None:
    """Return the lowest and highest value around the picture, None where the file names none."""
    first = data.get("PixelPaddingValue")
    if first is None:
        return None
    # Some write a negative value as if it had no sign.
    ends = np.array([first, data.get("PixelPaddingRangeLimit", first)]).astype(kind)
    return ends.min(), ends.max()
