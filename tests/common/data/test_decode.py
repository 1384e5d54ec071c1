import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from common.config.sections import ImageKeys
from common.data.decode import decode_file, dicom_patient
from common.errors import SiteError
from tests.common.data.sites import SETTINGS


def write_dicom(path: Path, pixels: np.ndarray[Any, Any] | None, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientID = "P 7"
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelData = pixels.astype("<i2").tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("L", 100, 100),
        ("RGB", (100, 100, 100), 100),
        ("RGBA", (100, 100, 100, 255), 100),
        ("RGBA", (100, 100, 100, 0), 0),
        ("LA", (100, 255), 100),
        ("I;16", 65535, 255),
        ("I;16", 4095, 255),
        ("1", 1, 255),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_every_mode_becomes_eight_bit_grey(
    tmp_path: Path, mode: str, value: Any, grey: int, suffix: str
) -> None:
    path = tmp_path / f"scan.{suffix}"
    Image.new(mode, (20, 10), value).save(path)
    decoded = decode_file(path, SETTINGS)
    assert decoded.shape == (8, 8, 1)
    assert decoded.dtype == np.uint8
    assert set(decoded.ravel().tolist()) == {grey}


def test_palette_and_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (90, 90, 90)).convert("P").save(tmp_path / "palette.png")
    assert abs(int(decode_file(tmp_path / "palette.png", SETTINGS).mean()) - 90) <= 20
    Image.new("L", (20, 10), 90).save(tmp_path / "scan.jpg")
    assert abs(decode_file(tmp_path / "scan.jpg", SETTINGS).astype(int) - 90).max() <= 1


def test_colour_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (10, 20, 30)).save(tmp_path / "slide.png")
    colour = ImageKeys(cache_size=8, channels=3, window_center=0.0, window_width=1.0)
    assert decode_file(tmp_path / "slide.png", colour)[3, 3].tolist() == [10, 20, 30]


def test_twelve_bits_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    values = np.full((10, 10), 2048, np.uint16)
    values[0, 0] = 3000
    Image.fromarray(values).save(tmp_path / "twelve.png")
    assert decode_file(tmp_path / "twelve.png", SETTINGS)[7, 7, 0] == round(2048 / 4095 * 255)


def test_dicom_rescale_and_the_files_own_window(tmp_path: Path) -> None:
    # Stored 1000 → 0 HU; window 40 ± 200 HU: (0 − (−160)) / 400 · 255 = 102.
    path = write_dicom(
        tmp_path / "slice.dcm",
        np.full((16, 16), 1000),
        RescaleSlope=1,
        RescaleIntercept=-1000,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
    )
    assert set(decode_file(path, SETTINGS).ravel().tolist()) == {102}
    assert dicom_patient(path) == "P 7"


def test_dicom_without_window_takes_the_configured_one_and_monochrome1_is_inverted(
    tmp_path: Path,
) -> None:
    # −600 HU is the middle of −600 ± 750: 127.5; air at −1350 HU and below is black.
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0}
    middle = write_dicom(tmp_path / "a.dcm", np.full((16, 16), -600), **tags)
    assert decode_file(middle, SETTINGS)[0, 0, 0] in (127, 128)
    inverted = write_dicom(
        tmp_path / "b.dcm",
        np.full((16, 16), -1350),
        PhotometricInterpretation="MONOCHROME1",
        **tags,
    )
    assert decode_file(inverted, SETTINGS)[0, 0, 0] == 255


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises ``width`` × ``height`` pixels and whose data hold none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_bad_files_are_named_with_a_remedy(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(good)
    contents = {
        "empty.png": (b"", r"empty\.png is empty \(zero bytes\)"),
        "cut.png": (good.read_bytes()[:400], r"cut\.png is truncated or damaged"),
        "text.png": (b"patient report, not an image", r"text\.png is not an image"),
        "huge.png": (png_of_size(30_000, 30_000), r"huge\.png .*not decoded"),
        "large.png": (png_of_size(11_000, 11_000), r"large\.png says it has 11,000 × 11,000"),
    }
    for name, (content, sentence) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SiteError, match=rf"{sentence}.*(Export|[Mm]ove|Resize)"):
            decode_file(tmp_path / name, SETTINGS)
    with pytest.raises(SiteError, match=r"none\.png: No such file"):
        decode_file(tmp_path / "none.png", SETTINGS)


def test_dicom_without_pixels_or_with_too_many_is_refused(tmp_path: Path) -> None:
    report = write_dicom(tmp_path / "report.dcm", None)
    with pytest.raises(SiteError, match=r"report\.dcm is a DICOM file without pixels"):
        decode_file(report, SETTINGS)
    huge = write_dicom(tmp_path / "huge.dcm", np.zeros((4, 4)), Rows=30_000, Columns=30_000)
    with pytest.raises(SiteError, match=r"huge\.dcm says it has 30,000 × 30,000"):
        decode_file(huge, SETTINGS)
    cut = write_dicom(tmp_path / "cut.dcm", np.zeros((64, 64)))
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(SiteError, match=r"cut\.dcm is (truncated or )?(a )?damaged"):
        decode_file(cut, SETTINGS)


@pytest.mark.parametrize("cut", range(0, 700, 37))
def test_no_truncation_ends_in_anything_but_a_sentence(tmp_path: Path, cut: int) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", np.zeros((16, 16)))
    path = tmp_path / "cut"
    path.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(SiteError, match="cut"):
        decode_file(path, SETTINGS)
