"""Greys of more than 8 bits: one scale for a site, and all that a file says of how it is shown."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from common.config.load import make_config
from common.config.sections import ImageKeys
from common.data import cache
from common.data.cache import SiteData, load_site
from common.data.decode import decode_file
from common.data.folder import read_site
from common.data.scale import Extent, Scale, find_scale
from common.errors import ConfigError, SiteError
from tests.common.data.dicom_files import grey_file

SIDE = 16
CONFIG = ImageKeys(cache_size=SIDE, window_center=-600, window_width=1500)
CLASSES = ("non-covid", "covid")
RNG = np.random.default_rng(0)
KINDS = {"u": 1, "i": 2, "f": 3}


def tiff(values: NDArray[Any], order: str = "<", **tags: int) -> bytes:
    """Return an uncompressed TIFF of greys (TIFF 6.0, part 1); tags by name, ``photometric`` 1."""
    kind = values.dtype
    data = values.astype(kind.newbyteorder(order)).tobytes()
    fields = {
        256: values.shape[1],
        257: values.shape[0],
        258: 8 * kind.itemsize,
        259: 1,
        262: tags.get("photometric", 1),
        273: 8,
        274: tags.get("orientation", 1),
        277: 1,
        278: values.shape[0],
        279: len(data),
        339: KINDS[kind.kind],
    }
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    entries = (struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields.items())
    return start + data + struct.pack(f"{order}H", len(fields)) + b"".join(entries) + bytes(4)


def write_site(root: Path, files: dict[str, bytes | NDArray[Any]]) -> Path:
    """Write a site's images: bytes as they are, arrays as PNG."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            Image.fromarray(content).save(path)
    for label in CLASSES:
        (root / label).mkdir(parents=True, exist_ok=True)
    return root


def load(root: Path, config: ImageKeys = CONFIG) -> SiteData:
    return load_site(read_site("a", root, CLASSES), config, root.parent / "cache")


def shown(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


def assert_site(data: SiteData, files: dict[str, NDArray[Any]], low: float, high: float) -> None:
    assert data.scale == (low, high)
    for image, name in zip(data.images, data.files, strict=True):
        assert np.abs(image[..., 0] - shown(files[name], low, high)).max() <= 0.5 + 1e-3


def series(high: int, dtype: Any = np.uint16, low: int = 0) -> dict[str, NDArray[Any]]:
    values = RNG.integers(low, high, (6, SIDE, SIDE), endpoint=True).astype(dtype)
    return {f"{CLASSES[n % 2]}/slice-{n}": one for n, one in enumerate(values)}


def as_files(images: dict[str, NDArray[Any]], suffix: str, **tags: Any) -> tuple[Any, Any]:
    """Return images by file name, and the files."""
    named = {f"{name}.{suffix}": values for name, values in images.items()}
    if suffix == "png":
        return named, named
    return named, {name: tiff(values, **tags) for name, values in named.items()}


@pytest.mark.parametrize(("top", "bits"), [(4095, 12), (3000, 12), (16383, 14), (65535, 16)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_site_s_scale_is_of_the_bits_that_its_files_use(
    tmp_path: Path, top: int, bits: int, suffix: str
) -> None:
    images, files = as_files(series(top), suffix)
    # A dark slice is not made brighter than the others, nor all darker by a bright pixel of one.
    images[f"covid/dark.{suffix}"] = dark = np.full((SIDE, SIDE), 200, np.uint16)
    files[f"covid/dark.{suffix}"] = tiff(dark) if suffix == "tif" else dark
    assert_site(load(write_site(tmp_path / "a", files)), images, 0, 2**bits - 1)


def test_one_pixel_changes_the_brightness_of_no_slice_alone(tmp_path: Path) -> None:
    images, files = as_files(series(600), "png")
    for image in images.values():
        image[5, 5] = 630
    images["covid/slice-3.png"][0, 0] = 4100
    data = load(write_site(tmp_path / "a", files))
    assert_site(data, images, 0, 8191)
    assert {int(image[5, 5, 0]) for image in data.images} == {round(630 / 8191 * 255)}


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int32])
def test_hounsfield_units_in_a_tiff_take_the_window(tmp_path: Path, dtype: Any) -> None:
    images, files = as_files(series(400, dtype, low=-1024), "tif")
    bright = images["covid/metal.tif"] = np.full((SIDE, SIDE), -600, dtype)
    bright[0, 0] = 30_000
    files["covid/metal.tif"] = tiff(bright)
    assert_site(load(write_site(tmp_path / "a", files)), images, -1350, 150)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), 0, 1),
        (np.linspace(-1, 1, 256, dtype=np.float32), -1, 1),
        (np.linspace(0, 255, 256, dtype=np.float32), 0, 255),
        (np.linspace(0, 1000, 256, dtype=np.float32), 0, 1024),
        (np.linspace(0, 1.5, 256, dtype=np.float32), 0, 2),
        (np.linspace(0, 0.1, 256, dtype=np.float32), 0, 0.125),
        (np.linspace(-2.5, 3, 256, dtype=np.float32), -4, 4),
        (np.arange(256).astype(np.float32) * 4, 0, 1023),
        (np.linspace(-100, 100, 256).astype(np.int16), -128, 127),
        (np.linspace(-300, 300, 256).astype(np.int16), -512, 511),
        (np.arange(-128, 128).astype(np.int8), -128, 127),
    ],
)
def test_other_values_take_the_range_of_their_bits(
    tmp_path: Path, values: NDArray[Any], low: float, high: float
) -> None:
    image = values.reshape(SIDE, SIDE)
    files = {f"{label}/a.tif": tiff(image) for label in CLASSES}
    files["covid/a.tif"] = tiff(image[::-1].copy())
    images = {"non-covid/a.tif": image, "covid/a.tif": image[::-1]}
    assert_site(load(write_site(tmp_path / "a", files)), images, low, high)


def test_the_configuration_names_black_and_white(tmp_path: Path) -> None:
    images, files = as_files(series(4095), "png")
    root = write_site(tmp_path / "a", files)
    assert_site(load(root), images, 0, 4095)
    named = CONFIG.model_copy(update={"grey_low": 500.0, "grey_high": 3000.0})
    assert_site(load(root, named), images, 500, 3000)
    with pytest.raises(ConfigError, match=r"grey-high is 0, not above grey-low = 500"):
        make_config({"grey-low": 500.0})


def test_files_that_name_their_bits_are_believed_where_they_use_them(tmp_path: Path) -> None:
    """A detector of 14 bits whose darkest images fill a third of them, and one that says 16."""
    dark = RNG.integers(0, 6000, (SIDE, SIDE))
    for bits, white in ((14, 16383), (16, 8191)):
        files = {f"{label}/a.dcm": grey_file(dark + n, bits) for n, label in enumerate(CLASSES)}
        root = write_site(tmp_path / str(bits) / "a", files)
        images = {f"{label}/a.dcm": dark + n for n, label in enumerate(CLASSES)}
        assert_site(load(root), images, 0, white)


def test_files_of_several_depths_have_one_scale(tmp_path: Path) -> None:
    files = {
        "covid/a.dcm": grey_file(RNG.integers(0, 4096, (SIDE, SIDE)), 12),
        "covid/b.dcm": grey_file(np.full((SIDE, SIDE), 16383), 14),
        "non-covid/c.png": np.full((SIDE, SIDE), 100, np.uint8),
    }
    data = load(write_site(tmp_path / "a", files))
    assert data.scale == (0, 16383)
    assert data.images[0].max() <= 64
    assert set(data.images[2].ravel().tolist()) == {100}


def test_a_site_whose_files_say_it_all_has_no_scale(tmp_path: Path) -> None:
    windowed = grey_file(RNG.integers(0, 4096, (SIDE, SIDE)), 12, WindowCenter=1, WindowWidth=400)
    files = {"covid/a.png": np.zeros((SIDE, SIDE), np.uint8), "non-covid/b.dcm": windowed}
    assert load(write_site(tmp_path / "a", files)).scale is None


def test_scales() -> None:
    def found(*extents: Extent, **keys: float) -> Scale:
        return find_scale(extents, CONFIG.model_copy(update=keys))

    assert found(Extent(0, 4095, None), Extent(0, 300, None)) == (0, 4095)
    assert found(Extent(0, 4096, None)) == (0, 8191)
    assert found(Extent(-1, 0, None)) == (-1, 1)
    assert found(Extent(-499, 3000, None)) == (-4096, 4095)
    assert found(Extent(-500, 3000, None)) == (-1350, 150)
    # Counts of an image that names its range are no Hounsfield units, wherever they begin.
    assert found(Extent(-1000, 900, Scale(-1024, 1023))) == (-1024, 1023)
    assert found(Extent(0, 40, Scale(0, 65535))) == (0, 255)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_white_is_zero_at_every_depth(tmp_path: Path, dtype: Any, order: str) -> None:
    image = np.arange(SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(image, order, photometric=0))
    assert np.array_equal(decode_file(path, CONFIG)[..., 0], 255 - image.astype(np.uint8))


def turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return how an image is shown whose first row and column lie as TIFF 6.0 defines."""
    return {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.T,
        6: image.T[:, ::-1],
        7: image.T[::-1, ::-1],
        8: image.T[::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "16-bit png", "tif", "16-bit tif"])
def test_images_are_turned_as_they_say(tmp_path: Path, kind: str, orientation: int) -> None:
    high = 65535 if "16-bit" in kind else 255
    image = np.zeros((SIDE, SIDE), np.uint16 if high > 255 else np.uint8)
    image[: SIDE // 2, : SIDE // 2], image[0 : SIDE // 2, SIDE // 2 :] = high, high // 3
    path = tmp_path / f"a.{kind[-3:]}"
    if "tif" in kind:
        path.write_bytes(tiff(image, orientation=orientation))
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(image).save(path, exif=exif, quality=100)
    found = decode_file(path, CONFIG)[..., 0].astype(float)
    assert np.abs(found - turned(image, orientation) / high * 255).max() <= (
        3 if "jpg" in kind else 1
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_transparent_is_black(tmp_path: Path, dtype: Any) -> None:
    image = RNG.integers(0, 256, (SIDE, SIDE)).astype(dtype)
    image[0] = 200
    Image.fromarray(image).save(tmp_path / "a.png", transparency=200)
    found = decode_file(tmp_path / "a.png", CONFIG)[..., 0]
    assert np.array_equal(found, np.where(image == 200, 0, image))


@pytest.mark.parametrize(("gamma", "exponent"), [(0.45455, 1), (1.0, 1 / 2.2), (0.25, 1 / 0.55)])
@pytest.mark.parametrize("high", [255, 65535])
def test_a_png_s_gamma_is_corrected(
    tmp_path: Path, gamma: float, exponent: float, high: int
) -> None:
    """PNG (third edition), 13.13: for a display of 2.2."""
    image = np.rint(np.linspace(0, high, SIDE * SIDE)).reshape(SIDE, SIDE)
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    pixels = Image.fromarray(image.astype(np.uint8 if high == 255 else np.uint16))
    pixels.save(tmp_path / "a.png", pnginfo=info)
    found = decode_file(tmp_path / "a.png", CONFIG)[..., 0]
    assert np.abs(found - 255 * (image / high) ** exponent).max() <= 1


def test_a_tiff_that_is_not_read_is_not_called_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.zeros((SIDE, SIDE))))
    with pytest.raises(SiteError, match=r"a TIFF of a kind that is not read .* 8 or 16 bits"):
        decode_file(path, CONFIG)


def frames_of(count: int) -> NDArray[Any]:
    return RNG.integers(0, 4096, (count, SIDE, SIDE))


def test_each_frame_is_an_image_of_its_own(tmp_path: Path) -> None:
    several, one = frames_of(3), frames_of(1)[0]
    files = {
        "covid/scan.dcm": grey_file(several, 12, PatientID="P1"),
        "covid/scan#1.dcm": grey_file(one, 12, PatientID="P2"),
        "non-covid/other.dcm": grey_file(frames_of(2), 12),
    }
    data = load(write_site(tmp_path / "a", files))
    assert data.files == (
        *("covid/scan#1.dcm", "covid/scan.dcm#1", "covid/scan.dcm#2", "covid/scan.dcm#3"),
        *("non-covid/other.dcm#1", "non-covid/other.dcm#2"),
    )
    assert data.labels.tolist() == [1, 1, 1, 1, 0, 0]
    assert data.patients == ("P2", "P1", "P1", "P1", None, None)
    for place, values in enumerate((one, *several)):
        assert np.abs(data.images[place, ..., 0] - shown(values, 0, 4095)).max() <= 0.5 + 1e-9
    again = load(tmp_path / "a")
    assert again.files == data.files and np.array_equal(again.images, data.images)


def test_frames_that_the_table_names_are_the_only_ones(tmp_path: Path) -> None:
    several = frames_of(3)
    files = {
        "covid/scan.dcm": grey_file(several, 12),
        "non-covid/other.dcm": grey_file(several[::-1], 12),
        "metadata.csv": b"file_name,label\ncovid/scan.dcm#3,covid\nnon-covid/other.dcm#2,non-covid",
    }
    data = load(write_site(tmp_path / "a", files))
    assert data.files == ("covid/scan.dcm#3", "non-covid/other.dcm#2")
    assert np.abs(data.images[0, ..., 0] - shown(several[2], 0, 4095)).max() <= 0.5 + 1e-9


def test_an_animation_is_refused_as_pages_are(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((SIDE, SIDE), 9 * n, np.uint8)) for n in range(3)]
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(SiteError, match=r"holds 3 images, and which one is meant"):
            decode_file(path, CONFIG)


def test_no_frame_is_taken_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(grey_file(frames_of(3), 12))
    with pytest.raises(
        SiteError, match=r"holds 3 frames\. Name one, as scan\.dcm#1 to scan\.dcm#3"
    ):
        decode_file(path, CONFIG)
    with pytest.raises(SiteError, match=r"has no frame 4: it holds 3"):
        decode_file(tmp_path / "scan.dcm#4", CONFIG)


def test_caches_of_another_decoding_are_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, files = as_files(series(4095), "png")
    root = write_site(tmp_path / "a", files)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT - 1)
    load(root)
    (old,) = (tmp_path / "cache").glob("a-*/images.npy")
    wrong = np.load(old)
    np.save(old, np.zeros_like(wrong))
    monkeypatch.undo()
    assert_site(load(root), images, 0, 4095)
