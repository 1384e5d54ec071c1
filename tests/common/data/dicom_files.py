"""DICOM files of every kind, made for tests."""

import io
from typing import Any

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

BY_PYDICOM = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def grey_file(
    values: NDArray[Any],
    bits: int,
    signed: bool = False,
    syntax: UID = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """Return a file of greys.

    Parameters
    ----------
    values : ndarray, shape (height, width) or (frames, height, width)
        Stored values.
    bits : int
        Bits stored; 8 or 16 are allocated.
    signed : bool
        Whether values have a sign.
    syntax : UID
        Transfer syntax; compressed without loss.
    **tags
        Set last; one of None is left out. A list of Datasets is a sequence.
    """
    allocated = 8 if bits <= 8 else 16
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = new_file(syntax if syntax not in (*BY_PYDICOM, JPEGLosslessSV1) else None)
    data.Rows, data.Columns = values.shape[-2:]
    if values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = allocated, bits, bits - 1
    data.PixelRepresentation = int(signed)
    data.PixelData = values.astype(f"{order}{kind}").tobytes()
    data["PixelData"].VR = "OB" if allocated == 8 else "OW"
    for tag, value in tags.items():
        if value is not None:
            setattr(data, tag, value)
        elif tag in data:
            delattr(data, tag)
    return written(data, syntax)


def new_file(syntax: UID | None = None, kind: UID = DigitalXRayImageStorageForPresentation) -> Any:
    """Return a file without pixels, of no modality."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, "1.2.3.4"
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = kind, "1.2.3.4"
    return data


def written(data: Any, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return a file's bytes in a transfer syntax."""
    if syntax in BY_PYDICOM:
        data.compress(syntax, generate_instance_uid=False)
    held = io.BytesIO()
    big = syntax == ExplicitVRBigEndian
    pydicom.dcmwrite(
        held,
        data,
        enforce_file_format=True,
        **({"little_endian": False, "implicit_vr": False} if big else {}),
    )
    return as_jpeg_lossless(held.getvalue()) if syntax == JPEGLosslessSV1 else held.getvalue()


def as_jpeg_lossless(content: bytes) -> bytes:
    """Return a file with its pixels compressed by GDCM."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name, "before"), Path(name, "after")
        before.write_bytes(content)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(before))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(after))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return after.read_bytes()


def item(**tags: Any) -> Dataset:
    """Return an item of a sequence."""
    made = Dataset()
    for tag, value in tags.items():
        setattr(made, tag, value)
    return made


def table(first: int, entries: NDArray[np.uint16], bits: int, signed: bool = False) -> Dataset:
    """Return a table of values, as of a modality or of values of interest."""
    made = Dataset()
    made.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    made.add_new("LUTData", "US", entries.tolist())
    return made
