"""One image file becomes bytes of one size: PNG, JPEG, TIFF or DICOM, 8 or 16 bits, grey or not."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.config.sections import ImageKeys
from common.data.dicom import ImageHeader, dicom_header, dicom_image, finite, patient_id
from common.errors import SiteError

MAX_PIXELS = 100_000_000
"""An image of more pixels is refused by its header and never decoded."""
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which is lower and only warns at first.
DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""What Pillow may take a file for: of its others, PostScript would run a program."""


def decode_file(path: Path, config: ImageKeys) -> NDArray[np.uint8]:
    """Decode one file.

    Parameters
    ----------
    path : Path
        The file; its content decides what it is, not its name.
    config : ImageKeys
        Size of cached images, channels and window.

    Returns
    -------
    ndarray of uint8, shape (size, size, channels)
        Squashed to a square with antialiasing.

    Raises
    ------
    SiteError
        If the file is empty, truncated, no image, too large, or a DICOM file without pixels,
        saying what to do; the caller adds the site.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SiteError(f"cannot read {path}: {error.strerror}.") from error
    return decode_bytes(content, path, config)


def decode_bytes(content: bytes, path: Path, config: ImageKeys) -> NDArray[np.uint8]:
    """Decode a file's content; ``path`` is for the error's sentence. As :func:`decode_file`."""
    try:
        read_header(content, path)
        if _is_dicom(content):
            image = dicom_image(content, path, (config.window_center, config.window_width))
        else:
            image = _image(content, path)
        image = image.convert("L" if config.channels == 1 else "RGB")
        size, bilinear = (config.cached_size,) * 2, Image.Resampling.BILINEAR
        image = image.resize(size, bilinear, reducing_gap=3)
        return np.asarray(image, dtype=np.uint8).reshape(*size, config.channels)
    except SiteError:
        raise
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to: struct.error, SyntaxError,
        # KeyError, EOFError … The file is at fault in each case.
        raise SiteError(
            f"{path} is truncated or damaged ({type(error).__name__}). "
            "Export it again or move it away."
        ) from error


def read_header(content: bytes, path: Path) -> ImageHeader:
    """Read what a file says of itself and refuse what must not be decoded.

    Raises
    ------
    SiteError
        If the file is empty, no image, larger than ``MAX_PIXELS``, or a DICOM file without
        pixels. A damaged header raises whatever it leads a decoder to.
    """
    if not content:
        raise SiteError(f"{path} is empty (zero bytes). Export it again or move it away.")
    try:
        header = dicom_header(content, path) if _is_dicom(content) else _image_header(content)
    except UnidentifiedImageError as error:
        dicom = path.suffix.lower() in DICOM_SUFFIXES
        hint = "a DICOM file without its preamble" if dicom else "not an image"
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
    return header


def _image_header(content: bytes) -> ImageHeader:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return ImageHeader(image.width, image.height, f"{image.format or '?'} ({image.mode})")


def dicom_patient(path: Path) -> str | None:
    """Return the patient id in a DICOM file's header, None where there is none or no DICOM."""
    try:
        with path.open("rb") as file:
            if not _is_dicom(file.read(132)):
                return None
    except OSError:
        return None
    return patient_id(path)


def _is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def _image(content: bytes, path: Path) -> Image.Image:
    """Decode with Pillow; 16-bit and float greys are brought to 8 bits."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # A JPEG of several pictures holds one photograph; a TIFF of several, slices or pages.
        if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
            raise SiteError(
                f"{path} holds {pages} images, and which one is meant cannot be told. Save each as "
                "a file of its own."
            )
        if image.mode in ("LAB", "HSV"):
            raise SiteError(f"{path} holds {image.mode} colours. Save it as grey or RGB.")
        image.load()
        if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
            return Image.fromarray(_eight_bits(finite(np.asarray(image), path)))
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            # What is transparent is not part of the picture: lay it on black.
            layers = image.convert("RGBA")
            ground = Image.new("RGBA", layers.size, (0, 0, 0, 255))
            return Image.alpha_composite(ground, layers).convert("RGB")
        return image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr", "1") else image.copy()


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale greys of more than 8 bits by the range of their bits: 12 bits where they suffice."""
    top = float(values.max(initial=0))
    full = 255.0 if top <= 255 else 4095.0 if top <= 4095 else 65535.0
    if values.min(initial=0) < 0 or top > 65535 or values.dtype.kind == "f":
        low, full = float(values.min()), float(values.max() - values.min()) or 1.0
        values = values - low
    return np.clip(np.rint(values / full * 255), 0, 255).astype(np.uint8)
