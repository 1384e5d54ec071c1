"""DICOM files that scanners, exports and accidents make."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from tests.corpus.case import Case
from tests.corpus.sites import SPOILT, write_site

INSTANCE = "1.2.826.0.1.3680043.8.498.1"
HOUNSFIELD = np.arange(256, dtype=np.int16).reshape(16, 16) - 600


def dicom(
    pixels: np.ndarray[Any, Any] | None = HOUNSFIELD,
    syntax: UID = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """Return a file of 16-bit greys, some tags changed; a tag of None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, INSTANCE
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, INSTANCE
    data.PatientID = "P7"
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelData = pixels.astype("<i2").tobytes()
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    held = io.BytesIO()
    pydicom.dcmwrite(held, data, enforce_file_format=True)
    return held.getvalue()


WHOLE = dicom()


def compressed() -> bytes:
    """Return what hospitals send most: JPEG Lossless, which needs a library of its own."""
    frame = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xc3" + bytes(60) + b"\xff\xd9"])
    data = pydicom.dcmread(io.BytesIO(dicom()))
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = frame
    data["PixelData"].VR = "OB"
    held = io.BytesIO()
    pydicom.dcmwrite(held, data, enforce_file_format=True)
    return held.getvalue()


def run_length() -> bytes:
    data = pydicom.dcmread(io.BytesIO(dicom()))
    data.compress(RLELossless)
    held = io.BytesIO()
    pydicom.dcmwrite(held, data, enforce_file_format=True)
    return held.getvalue()


def deflated_badly() -> bytes:
    """Return a file whose dataset should be deflated and is not."""
    content = dicom(syntax=DeflatedExplicitVRLittleEndian)
    return content[:-200] + bytes(200)


def frames(count: int, said: int | None = None) -> bytes:
    """Return a file of some frames, which says how many there are."""
    pixels = np.stack([HOUNSFIELD + n for n in range(count)])
    return dicom(
        NumberOfFrames=count if said is None else said, PixelData=pixels.astype("<i2").tobytes()
    )


def colour(bits: int = 8, kind: str = "RGB") -> bytes:
    pixels = np.zeros((16, 16, 3), np.uint8 if bits == 8 else np.uint16) + 90
    return dicom(
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation=kind,
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
        PixelData=pixels.tobytes(),
    )


def raw(tag: bytes, kind: bytes, value: bytes, content: bytes = WHOLE) -> bytes:
    """Return the file with a short element's value replaced as it stands, whatever that means."""
    start = content.index(tag + kind) + 6
    length = int.from_bytes(content[start : start + 2], "little")
    after = content[start + 2 + length :]
    return content[:start] + len(value).to_bytes(2, "little") + value + after


ROWS, INTERCEPT, WIDTH = b"\x28\0\x10\0", b"\x28\0\x52\x10", b"\x28\0\x51\x10"


def through(center: float, width: float, values: NDArray[Any] = HOUNSFIELD) -> NDArray[Any]:
    """Return greys through a window of the function LINEAR (PS3.3 C.11.2.1.2.1)."""
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    grey = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.select([values <= low, values > high], [0, 255], grey)


CONFIGURED = through(-600, 1500)
"""What the window shows that a configuration has without saying so."""


def scan(
    name: str,
    why: str,
    content: bytes | Callable[[], bytes],
    said: str = "",
    shows: Sequence[NDArray[Any]] = (CONFIGURED,),
) -> Case:
    """Return the case of a sound site with one such file more."""

    def make(root: Path) -> None:
        write_site(root)
        data = content if isinstance(content, bytes) else content()
        (root / "covid" / f"{SPOILT}.dcm").write_bytes(data)

    if said:
        return Case(name, why, make, rf"{SPOILT}\.dcm {said}")
    return Case(name, why, make, shows=lambda: shows)


DAMAGED = r"is (truncated or )?(a )?damaged"
DICOMS = (
    scan("no pixels", "a report among the slices", lambda: dicom(None), "is a DICOM file without"),
    scan(
        "rows without pixels", "anonymised too well", lambda: dicom(PixelData=None), ".*without p"
    ),
    scan("pixels cut short", "a transfer broke off", WHOLE[:-100], DAMAGED),
    scan("header cut short", "the same, earlier", WHOLE[:300], DAMAGED + "|.*without pixels"),
    scan(
        "no preamble", "an export of the bare dataset", WHOLE[132:], "is a DICOM file without its"
    ),
    scan(
        "zeros after the preamble",
        "blocks never written",
        WHOLE[:132] + bytes(400),
        "is a D|" + DAMAGED,
    ),
    scan("rows empty", "a tag without a value", lambda: raw(ROWS, b"US", b""), DAMAGED),
    scan("two rows", "a tag with two values", lambda: raw(ROWS, b"US", b"\x10\0\x10\0"), DAMAGED),
    scan("0 rows", "an empty picture", lambda: dicom(Rows=0), DAMAGED),
    scan(
        "65,535 rows", "a header that lies", lambda: dicom(Rows=65_535, Columns=65_535), "says it"
    ),
    scan("13 bits allocated", "no such width", lambda: dicom(BitsAllocated=13), DAMAGED),
    scan("more bits stored than there are", "17 of 16", lambda: dicom(BitsStored=17), DAMAGED),
    scan("JPEG Lossless", "as most PACS send", compressed, r"is compressed \(JPEG Lossless"),
    scan(
        "an unknown syntax",
        "a vendor's own",
        lambda: raw(b"\2\0\x10\0", b"UI", b"1.2.999.1 "),
        "is compressed|" + DAMAGED,
    ),
    scan("deflated badly", "a proxy changed bytes", deflated_badly, DAMAGED),
    scan("fewer frames than said", "a header that lies", lambda: frames(2, 900), DAMAGED),
    scan(
        "intercept that is no number", "text in it", lambda: raw(INTERCEPT, b"DS", b"ab"), DAMAGED
    ),
    scan("intercept NaN", "0 / 0 on a console", lambda: raw(INTERCEPT, b"DS", b"nan "), "holds"),
    scan("16-bit colour", "8 bits would be half of it", lambda: colour(16), ".*16-bit colour"),
    scan(
        "palette",
        "greys would be numbers of colours",
        lambda: dicom(PhotometricInterpretation="PALETTE COLOR"),
        ".*PALETTE COLOR",
    ),
    scan(
        "window NaN",
        "a viewer wrote it: the configured one serves",
        lambda: raw(WIDTH, b"DS", b"nan ", dicom(WindowCenter=40, WindowWidth=40)),
    ),
    scan(
        "window of width 0",
        "the configured one serves",
        lambda: dicom(WindowCenter=40, WindowWidth=0),
    ),
    scan(
        "window of two",
        "bone and soft tissue: the first serves",
        lambda: dicom(WindowCenter=[-500, 300], WindowWidth=[400, 1500]),
        shows=[through(-500, 400)],
    ),
    scan("no rescale", "an old scanner", lambda: dicom(RescaleSlope=None, RescaleIntercept=None)),
    scan(
        "MONOCHROME1",
        "dark is bright",
        lambda: dicom(PhotometricInterpretation="MONOCHROME1"),
        shows=[255 - CONFIGURED],
    ),
    scan("colour", "a secondary capture", colour, shows=[np.full((16, 16), 90)]),
    scan(
        "YBR",
        "an ultrasound: its grey is Y",
        lambda: colour(kind="YBR_FULL"),
        shows=[np.full((16, 16), 90)],
    ),
    scan(
        "three frames",
        "each is an image of its own",
        lambda: frames(3),
        shows=[through(-600, 1500, HOUNSFIELD + n) for n in range(3)],
    ),
    scan("run-length encoded", "as ultrasound sends", run_length),
    scan("implicit VR", "as old scanners send", lambda: dicom(syntax=ImplicitVRLittleEndian)),
    scan(
        "unknown alphabet",
        "a patient's name in a vendor's own",
        lambda: dicom(SpecificCharacterSet="ISO_IR 999"),
    ),
    scan("two patients", "a tag with two values", lambda: dicom(PatientID=["P7", "P8"])),
    scan("no patient", "anonymised", lambda: dicom(PatientID=None)),
)
