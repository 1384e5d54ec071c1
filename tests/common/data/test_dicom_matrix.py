"""Every kind of DICOM pixels against values computed here from the standard's definitions.

Rescale: PS3.3 C.11.1.1.2. Tables: C.11.1.1.1 and C.11.2.1.1. Windows: C.11.2.1.2.1 (LINEAR),
C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT). Functional groups: C.7.6.16.2.9 and 2.10.
Photometric interpretation: C.7.6.3.1.2. Planes: C.7.6.3.1.3. Padding: C.7.5.1.1.2.
"""

import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from common.config.sections import ImageKeys
from common.data.decode import decode_file
from tests.common.data.dicom_files import grey_file, item, new_file, table, written

SIDE = 32
CONFIG = ImageKeys(cache_size=SIDE, window_center=-600, window_width=1500)
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
RESCALES: dict[str, dict[str, Any]] = {
    "no rescale": {"Modality": "DX"},
    "rescale to HU": {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024},
    "rescale to counts": {"Modality": "PT", "RescaleSlope": 2.5, "RescaleIntercept": 10},
}
WINDOWS: dict[str, dict[str, Any]] = {
    "no window": {},
    "LINEAR": {"WindowCenter": 300, "WindowWidth": 801},
    "LINEAR_EXACT": {
        "WindowCenter": 300,
        "WindowWidth": 801,
        "VOILUTFunction": "LINEAR_EXACT",
    },
    "SIGMOID": {"WindowCenter": 300, "WindowWidth": 801, "VOILUTFunction": "SIGMOID"},
}
ENTRIES = (np.linspace(0, 1, 1024) ** 2 * 4095).astype(np.uint16)


def cells(*values: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return every combination."""
    return list(itertools.product(*values))


def ramp(bits: int, signed: bool) -> NDArray[np.int64]:
    """Return (SIDE, SIDE) values from the lowest to the highest of so many bits, not in order."""
    lowest = -(2 ** (bits - 1)) if signed else 0
    values = np.rint(np.linspace(lowest, lowest + 2**bits - 1, SIDE**2)).astype(np.int64)
    return np.random.default_rng(0).permutation(values).reshape(SIDE, SIDE)


def windowed(v: NDArray[Any], c: float, w: float, function: str = "LINEAR") -> NDArray[Any]:
    """Return greys in [0, 255] by the standard's pseudo-code."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (v - c) / w))
    if function == "LINEAR_EXACT":
        return np.select([v <= c - w / 2, v > c + w / 2], [0, 255], ((v - c) / w + 0.5) * 255)
    low, high = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2
    return np.select([v <= low, v > high], [0, 255], ((v - (c - 0.5)) / (w - 1) + 0.5) * 255)


def expected(
    stored: NDArray[Any], bits: int, signed: bool, tags: dict[str, Any]
) -> NDArray[np.float64]:
    """Return the greys of stored values that use all their bits."""
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    v = stored * float(slope) + intercept
    lowest = -(2 ** (bits - 1)) if signed else 0
    if "VOILUTSequence" in tags:
        grey = ENTRIES[np.clip(np.rint(v).astype(int) - 100, 0, 1023)] / 4095 * 255
    elif "WindowCenter" in tags:
        function = tags.get("VOILUTFunction", "LINEAR")
        grey = windowed(v, tags["WindowCenter"], tags["WindowWidth"], function)
    elif tags.get("Modality") == "CT":
        grey = windowed(v, -600, 1500)
    else:
        ends = [lowest * slope + intercept, (lowest + 2**bits - 1) * slope + intercept]
        grey = (v - ends[0]) / (ends[1] - ends[0]) * 255
    return 255 - grey if tags["PhotometricInterpretation"] == "MONOCHROME1" else grey


def decoded(tmp_path: Path, content: bytes, frame: int = 0, channels: int = 1) -> NDArray[Any]:
    path = tmp_path / "image.dcm"
    path.write_bytes(content)
    named = path.with_name(f"image.dcm#{frame}") if frame else path
    config = CONFIG.model_copy(update={"channels": channels})
    return decode_file(named, config).astype(float)


def assert_greys(found: NDArray[Any], greys: NDArray[Any]) -> None:
    assert np.abs(found[..., 0] - greys).max() <= 1


@pytest.mark.parametrize(
    ("kind", "bits", "signed", "rescale", "window"),
    cells(
        ("MONOCHROME1", "MONOCHROME2"),
        (8, 12, 14, 16),
        (False, True),
        RESCALES,
        [*WINDOWS, "table"],
    ),
)
def test_greys(
    tmp_path: Path, kind: str, bits: int, signed: bool, rescale: str, window: str
) -> None:
    tags = {"PhotometricInterpretation": kind, **RESCALES[rescale], **WINDOWS.get(window, {})}
    if window == "table":
        tags["VOILUTSequence"] = [table(100, ENTRIES, 12)]
    stored = ramp(bits, signed)
    content = grey_file(stored, bits, signed, **tags)
    assert_greys(decoded(tmp_path, content), expected(stored, bits, signed, tags))


@pytest.mark.parametrize(
    ("syntax", "bits", "signed", "frames"),
    cells(SYNTAXES, (8, 12, 16), (False, True), (1, 3)),
)
def test_transfer_syntaxes(
    tmp_path: Path, syntax: str, bits: int, signed: bool, frames: int
) -> None:
    tags = {"PhotometricInterpretation": "MONOCHROME2", **WINDOWS["LINEAR"]}
    stored = np.stack([np.roll(ramp(bits, signed), 40 * n) for n in range(frames)])
    values = stored if frames > 1 else stored[0]
    content = grey_file(values, bits, signed, SYNTAXES[syntax], **tags)
    for number in range(frames):
        found = decoded(tmp_path, content, number + 1 if frames > 1 else 0)
        assert_greys(found, expected(stored[number], bits, signed, tags))


@pytest.mark.parametrize(
    ("rescaled", "shown"), cells(("root", "shared", "per frame"), ("shared", "per frame", "none"))
)
def test_functional_groups(tmp_path: Path, rescaled: str, shown: str) -> None:
    """An enhanced CT of three frames, each with an intercept and a window of its own, or one."""
    stored = np.stack([np.roll(ramp(12, False), 40 * n) for n in range(3)])
    places: list[Any] = [new_file() for _ in range(4)]
    shared, *frames = (item() for _ in places)
    root: dict[str, Any] = {"Modality": "CT"}
    greys = []
    for number, frame in enumerate(frames):
        own = 100 * number
        intercept = -1024 + (own if rescaled == "per frame" else 0)
        center = 40 + (own if shown == "per frame" else 0)
        transformation = {
            "RescaleIntercept": intercept,
            "RescaleSlope": 1,
            "RescaleType": "HU",
        }
        window = {"WindowCenter": center, "WindowWidth": 400}
        if rescaled == "root":
            root |= transformation
        else:
            where = shared if rescaled == "shared" else frame
            where.PixelValueTransformationSequence = [item(**transformation)]
        if shown != "none":
            where = shared if shown == "shared" else frame
            where.FrameVOILUTSequence = [item(**window)]
        v = stored[number] + float(intercept)
        greys.append(windowed(v, center, 400) if shown != "none" else windowed(v, -600, 1500))
    content = grey_file(
        stored,
        12,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
        **root,
    )
    for number in range(3):
        assert_greys(decoded(tmp_path, content, number + 1), greys[number])


COLOURS = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return ITU-R 601-2's grey of colours."""
    return rgb @ np.array([0.299, 0.587, 0.114])


def ybr(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Return YBR_FULL of RGB by PS3.3 C.7.6.3.1.2."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    return np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def rgb_of(ybr_values: NDArray[Any]) -> NDArray[Any]:
    """Return RGB of YBR_FULL."""
    y, b, r = np.moveaxis(ybr_values.astype(float), -1, 0)
    b, r = b - 128, r - 128
    red, green, blue = y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b
    return np.clip(np.stack([red, green, blue], -1), 0, 255)


def colour_file(pixels: NDArray[np.uint8], kind: str, planar: int, syntax: UID) -> bytes:
    data = new_file()
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = kind, planar
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = (np.moveaxis(pixels, -1, 0) if planar else pixels).tobytes()
    data["PixelData"].VR = "OB"
    return written(data, syntax)


@pytest.mark.parametrize(
    ("kind", "planar", "syntax", "channels"),
    cells(("RGB", "YBR_FULL"), (0, 1), ("explicit", "deflated", "RLE", "JPEG 2000"), (1, 3)),
)
def test_colours(tmp_path: Path, kind: str, planar: int, syntax: str, channels: int) -> None:
    if syntax == "JPEG 2000":
        kind = "RGB" if kind == "RGB" else "YBR_RCT"
    stored = ybr(COLOURS) if kind == "YBR_FULL" else COLOURS
    shown = rgb_of(stored) if kind == "YBR_FULL" else COLOURS.astype(float)
    if syntax in ("RLE", "JPEG 2000"):
        planar = 0
    name = "RGB" if kind == "YBR_RCT" else kind
    content = colour_file(stored, name, planar, SYNTAXES[syntax])
    if kind == "YBR_RCT":
        data = pydicom.dcmread(io.BytesIO(colour_file(stored, "RGB", 0, ExplicitVRLittleEndian)))
        data.PhotometricInterpretation = "YBR_RCT"
        data.compress(JPEG2000Lossless, generate_instance_uid=False)
        content = written(data)
    found = decoded(tmp_path, content, channels=channels)
    assert np.abs(found - (shown if channels == 3 else luma(shown)[..., None])).max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["YBR_FULL", "YBR_FULL_422"])
def test_jpeg_baseline_is_converted_once(tmp_path: Path, kind: str, channels: int) -> None:
    """Against Pillow's own decoding of the same JPEG stream."""
    held = io.BytesIO()
    smooth = np.stack(np.meshgrid(np.arange(SIDE) * 8, np.arange(SIDE) * 6), -1)
    colours = np.concatenate([smooth, 255 - smooth[..., :1]], -1).astype(np.uint8)
    sampling = 0 if kind == "YBR_FULL" else 1
    Image.fromarray(colours, "RGB").save(held, "JPEG", quality=95, subsampling=sampling)
    with Image.open(held) as image:
        shown = np.asarray(image).astype(float)
    data = new_file(JPEGBaseline8Bit)
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = kind, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = pydicom.encaps.encapsulate([held.getvalue()])
    data["PixelData"].VR = "OB"
    found = decoded(tmp_path, written(data), channels=channels)
    assert np.abs(found - (shown if channels == 3 else luma(shown)[..., None])).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette(tmp_path: Path, bits: int) -> None:
    colours = np.random.default_rng(2).integers(0, 2**bits, (3, 256))
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in zip(("Red", "Green", "Blue"), colours, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        kind = f"<u{bits // 8}"
        tags[f"{name}PaletteColorLookupTableData"] = entries.astype(kind).tobytes()
    stored = ramp(8, False)
    found = decoded(tmp_path, grey_file(stored, 8, **tags), channels=3)
    assert np.array_equal(found, np.moveaxis(colours[:, stored], 0, -1) >> (bits - 8))


@pytest.mark.parametrize(("bits", "high"), [(12, 15), (12, 13), (14, 15), (10, 11)])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_beside_those_stored_do_not_count(
    tmp_path: Path, bits: int, high: int, signed: bool
) -> None:
    """Overlays in other bits, and values kept at the upper end, as old files have them."""
    stored = ramp(bits, signed)
    noise = np.random.default_rng(3).integers(0, 2**16, stored.shape)
    used = ((1 << bits) - 1) << (high + 1 - bits)
    held = ((stored << (high + 1 - bits)) & used) | (noise & ~used & 0xFFFF)
    content = grey_file(held, bits, BitsStored=bits, HighBit=high, PixelRepresentation=int(signed))
    tags = {"PhotometricInterpretation": "MONOCHROME2"}
    assert_greys(decoded(tmp_path, content), expected(stored, bits, signed, tags))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("last", [None, -1990])
def test_padding_is_black(tmp_path: Path, kind: str, last: int | None) -> None:
    stored = ramp(12, True)
    stored[:4], stored[4:6] = -2000, -1995
    content = grey_file(
        stored,
        12,
        signed=True,
        PhotometricInterpretation=kind,
        PixelPaddingValue=-2000,
        PixelPaddingRangeLimit=last,
        **WINDOWS["LINEAR"],
    )
    greys = expected(stored, 12, True, {"PhotometricInterpretation": kind, **WINDOWS["LINEAR"]})
    greys[(stored >= -2000) & (stored <= (last or -2000))] = 0
    assert_greys(decoded(tmp_path, content), greys)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_table_of_the_modality(tmp_path: Path, bits: int) -> None:
    entries = (np.linspace(1, 0, 200) * (2**bits - 1)).astype(np.uint16)
    stored = ramp(8, False)
    content = grey_file(stored, 8, ModalityLUTSequence=[table(20, entries, bits)])
    shown = entries[np.clip(stored - 20, 0, 199)] / (2**bits - 1) * 255
    assert_greys(decoded(tmp_path, content), shown)


@pytest.mark.parametrize(
    ("bits", "tags"),
    [
        (8, {}),
        (8, {"RescaleSlope": 1, "RescaleIntercept": 0}),
        (12, {}),
        (16, {"RescaleSlope": 1, "RescaleIntercept": 0}),
        (12, {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "US"}),
    ],
)
def test_a_ct_that_can_hold_no_air_is_not_in_hounsfield_units(
    tmp_path: Path, bits: int, tags: dict[str, Any]
) -> None:
    """Screenshots, counts whose zero is lost, and values of another unit."""
    stored = ramp(bits, False)
    found = decoded(tmp_path, grey_file(stored, bits, Modality="CT", **tags))
    assert_greys(found, stored / (2**bits - 1) * 255)


@pytest.mark.parametrize(
    ("tags", "hounsfield"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": "PT"}, False),
        ({"Modality": "PT", "RescaleType": "HU"}, True),
        ({"Modality": None, "SOPClassUID": CTImageStorage}, True),
        ({"Modality": None}, False),
    ],
)
def test_what_is_in_hounsfield_units(
    tmp_path: Path, tags: dict[str, Any], hounsfield: bool
) -> None:
    stored = ramp(12, False)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "Modality": "OT", **tags}
    found = decoded(tmp_path, grey_file(stored, 12, **tags))
    assert_greys(
        found, windowed(stored - 1024.0, -600, 1500) if hounsfield else stored / 4095 * 255
    )


def test_an_intercept_without_a_slope(tmp_path: Path) -> None:
    stored = ramp(12, False)
    found = decoded(tmp_path, grey_file(stored, 12, Modality="CT", RescaleIntercept=-1024))
    assert_greys(found, windowed(stored - 1024.0, -600, 1500))


@pytest.mark.parametrize("channels", [1, 3])
def test_native_colours_of_half_the_width(tmp_path: Path, channels: int) -> None:
    """YBR_FULL_422, uncompressed: two luminances for a pair of colours (PS3.3 C.7.6.3.1.2)."""
    wide = ybr(np.repeat(COLOURS[:, ::2], 2, axis=1)).reshape(SIDE, SIDE // 2, 2, 3)
    wide[..., 1, 1:] = wide[..., 0, 1:]
    data = new_file()
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = "YBR_FULL_422", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    pairs = np.stack([wide[..., 0, 0], wide[..., 1, 0], wide[..., 0, 1], wide[..., 0, 2]], -1)
    data.PixelData = pairs.tobytes()
    data["PixelData"].VR = "OB"
    found = decoded(tmp_path, written(data), channels=channels)
    shown = rgb_of(wide.reshape(SIDE, SIDE, 3))
    assert np.abs(found - (shown if channels == 3 else luma(shown)[..., None])).max() <= 2


@pytest.mark.parametrize("kind", ["float", "double"])
def test_real_numbers(tmp_path: Path, kind: str) -> None:
    """Of no stated bits: in [0, 1] they are shown as they are."""
    values = np.random.default_rng(4).random((SIDE, SIDE))
    data = new_file()
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = 32 if kind == "float" else 64
    if kind == "float":
        data.FloatPixelData = values.astype("<f4").tobytes()
    else:
        data.DoubleFloatPixelData = values.astype("<f8").tobytes()
    assert_greys(decoded(tmp_path, written(data)), values * 255)
