"""One image file becomes bytes of one size: PNG, JPEG, TIFF, BMP or DICOM, as it is to be shown.

A DICOM file of several frames holds as many images, named ``scan.dcm#1`` and so on.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.config.sections import ImageKeys
from common.data.raster import ImageHeader, raster_header, read_raster
from common.data.scale import Greys, Scale, find_scale
from common.errors import SiteError

if TYPE_CHECKING:
    from common.data.dicom import DicomFile

MAX_PIXELS = 100_000_000
"""An image of more pixels is refused by its header and never decoded."""
MAX_FRAMES = 10_000
"""A file of more frames is refused likewise."""
TIFF_STARTS = (b"II*\0", b"MM\0*")
DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
FRAME = re.compile(r"(.+)#([1-9]\d{0,5})")


def split_frame(name: str) -> tuple[str, int | None]:
    """Split the name of an image into its file's and its frame, None where it names none."""
    match = FRAME.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def frame_names(name: str, frames: int) -> list[str]:
    """Return the names of a file's images: its own, if it holds one."""
    return [name] if frames == 1 else [f"{name}#{number}" for number in range(1, frames + 1)]


def locate(path: Path) -> tuple[Path, int | None]:
    """Return the file of an image and its frame; a file whose own name ends so is meant first."""
    name, frame = split_frame(path.name)
    return (path, None) if frame is None or path.exists() else (path.with_name(name), frame)


def decode_file(path: Path, config: ImageKeys, scale: Scale | None = None) -> NDArray[np.uint8]:
    """Decode one image.

    Parameters
    ----------
    path : Path
        The file; its content decides what it is, not its name. Of several frames the one that the
        name ends with, as ``scan.dcm#3``.
    config : ImageKeys
        Size of cached images, channels and window.
    scale : Scale, optional
        The site's, for greys that lack one; without it, their own.

    Returns
    -------
    ndarray of uint8, shape (size, size, channels)
        Squashed to a square with antialiasing.

    Raises
    ------
    SiteError
        If the file is empty, truncated, no image, too large, of several frames of which none is
        named, or a DICOM file without pixels, saying what to do; the caller adds the site.
    """
    file, frame = locate(path)
    (picture,) = pictures(file, [frame], config)
    return network_image(as_shown(picture, config, scale), config)


def as_shown(picture: Image.Image | Greys, config: ImageKeys, scale: Scale | None) -> Image.Image:
    """Return a picture in 8 bits; without a scale of its site, by its own extent."""
    if isinstance(picture, Image.Image):
        return picture
    scale = picture.scale or scale or find_scale([picture.extent()], config)
    return Image.fromarray(picture.eight_bits(scale))


def network_image(image: Image.Image, config: ImageKeys) -> NDArray[np.uint8]:
    """Return an image as it is cached, shape (size, size, channels)."""
    image = image.convert("L" if config.channels == 1 else "RGB")
    size, bilinear = (config.cached_size,) * 2, Image.Resampling.BILINEAR
    image = image.resize(size, bilinear, reducing_gap=3)
    return np.asarray(image, dtype=np.uint8).reshape(*size, config.channels)


def pictures(
    path: Path, frames: Sequence[int | None], config: ImageKeys
) -> Iterator[Image.Image | Greys]:
    """Yield some frames of a file, which is read once, at full size.

    Parameters
    ----------
    path : Path
        The file.
    frames : sequence of int or None
        Their numbers, from 1; None is the only one.
    config : ImageKeys
        The window.

    Yields
    ------
    Image or Greys
        An image of 8 bits, or greys that may need the site's scale.

    Raises
    ------
    SiteError
        As of :func:`decode_file`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SiteError(f"cannot read {path}: {error.strerror}.") from error
    try:
        header = read_header(content, path)
        for frame in frames:
            _check_frame(frame, header, path)
        if is_dicom(content):
            yield from open_dicom(content, path).pictures((n or 1 for n in frames), config)
        else:
            yield from (read_raster(content, path) for _ in frames)
    except SiteError:
        raise
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to: struct.error, SyntaxError,
        # KeyError, EOFError … The file is at fault in each case.
        raise SiteError(
            f"{path} is truncated or damaged ({type(error).__name__}). "
            "Export it again or move it away."
        ) from error


def _check_frame(frame: int | None, header: ImageHeader, path: Path) -> None:
    if frame is None and header.frames > 1:
        raise SiteError(
            f"{path} holds {header.frames} frames. Name one, as {path.name}#1 to "
            f"{path.name}#{header.frames}."
        )
    if frame is not None and frame > header.frames:
        raise SiteError(
            f"{path} has no frame {frame}: it holds {header.frames}. Correct the number."
        )


def open_dicom(content: bytes, path: Path) -> "DicomFile":
    """Return a DICOM file; ``path`` is for the error's sentence."""
    # A third of a second of every process that reads none.
    from common.data.dicom import DicomFile

    return DicomFile(content, path)


def is_dicom(content: bytes) -> bool:
    """Return whether a file of which these are the first bytes is a DICOM file."""
    return content[128:132] == b"DICM"


def dicom_patient(path: Path) -> str | None:
    """Return the patient id in a DICOM file's header, None where there is none or no DICOM."""
    try:
        return open_dicom(content, path).patient() if (content := _dicom_content(path)) else None
    # pydicom raises whatever a damaged header leads it to; decoding the file will say so.
    except Exception:
        return None


def count_frames(path: Path) -> int:
    """Return how many images a file holds; 1 of what decoding will refuse."""
    try:
        return read_header(content, path).frames if (content := _dicom_content(path)) else 1
    # As of dicom_patient.
    except Exception:
        return 1


def _dicom_content(path: Path) -> bytes:
    """Return a DICOM file's content; of another file, which is not read, nothing."""
    with path.open("rb") as file:
        start = file.read(132)
        return start + file.read() if is_dicom(start) else b""


def read_header(content: bytes, path: Path) -> ImageHeader:
    """Read what a file says of itself and refuse what must not be decoded.

    Raises
    ------
    SiteError
        If the file is empty, no image, larger than ``MAX_PIXELS``, of more than ``MAX_FRAMES``, or
        a DICOM file without pixels. A damaged header raises whatever it leads a decoder to.
    """
    if not content:
        raise SiteError(f"{path} is empty (zero bytes). Export it again or move it away.")
    try:
        header = open_dicom(content, path).header() if is_dicom(content) else raster_header(content)
    except UnidentifiedImageError as error:
        dicom = path.suffix.lower() in DICOM_SUFFIXES
        hint = "a DICOM file without its preamble" if dicom else "not an image"
        if content[:4] in TIFF_STARTS:
            raise SiteError(
                f"{path} is damaged, or a TIFF of a kind that is not read (64-bit values, say). "
                "Save it as grey of 8 or 16 bits, or as RGB."
            ) from error
        raise SiteError(
            f"{path} is {hint}, whatever its name says. Expected PNG, JPEG, TIFF or DICOM; "
            "move it away or export it again."
        ) from error
    if header.width * header.height > MAX_PIXELS:
        raise SiteError(
            f"{path} says it has {header.width:,} × {header.height:,} pixels, more than the "
            f"{MAX_PIXELS // 1_000_000} million allowed; it was not decoded. Resize it or move it "
            "away."
        )
    if header.frames > MAX_FRAMES:
        raise SiteError(
            f"{path} says it has {header.frames:,} frames, more than the {MAX_FRAMES:,} allowed; "
            "it was not decoded. Split it or move it away."
        )
    return header
