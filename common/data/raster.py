"""PNG, JPEG, TIFF and BMP files, with all that they say of how they are shown."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from common.data.scale import Greys, distinct
from common.errors import SiteError

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower than ours and only warns at first.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""What Pillow may take a file for: of its others, PostScript would run a program."""
PHOTOMETRIC, SAMPLE_FORMAT, BITS = 262, 339, 258
WHITE_IS_ZERO, SIGNED = 0, (2,)
DISPLAY_GAMMA = 2.2
"""For which a PNG's gamma is corrected where the file names one."""
for _kind, _modes in list(TiffImagePlugin.OPEN_INFO.items()):
    # Pillow reads every depth whose 0 is black, and of the deep ones whose 0 is white only some.
    if _kind[1] == 1 and _modes[0][0] in "IF":
        TiffImagePlugin.OPEN_INFO.setdefault((_kind[0], WHITE_IS_ZERO, *_kind[2:]), _modes)


class ImageHeader(NamedTuple):
    """What a file says of itself."""

    width: int
    height: int
    """In pixels."""
    kind: str
    """Its format and colours, as 'PNG (L)'."""
    frames: int = 1
    """How many images it holds."""


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


def raster_header(content: bytes) -> ImageHeader:
    """Read size and kind of a file.

    Raises
    ------
    UnidentifiedImageError
        If it is none of :data:`FORMATS`.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return ImageHeader(image.width, image.height, f"{image.format or '?'} ({image.mode})")


def read_raster(content: bytes, path: Path) -> Image.Image | Greys:
    """Decode a file: turned, inverted, uncovered and corrected as it says.

    Parameters
    ----------
    content : bytes
        The file.
    path : Path
        For the error's sentence.

    Returns
    -------
    Image or Greys
        An image of 8 bits, or greys of more.

    Raises
    ------
    SiteError
        If it holds several images, or values or colours that cannot be shown. A damaged file
        raises whatever it leads Pillow to.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        # A JPEG of several pictures holds one photograph; others slices, pages or a film.
        if opened.format != "JPEG" and (pages := getattr(opened, "n_frames", 1)) > 1:
            raise SiteError(
                f"{path} holds {pages} images, and which one is meant cannot be told. Save each as "
                "a file of its own."
            )
        if opened.mode in ("LAB", "HSV"):
            raise SiteError(f"{path} holds {opened.mode} colours. Save it as grey or RGB.")
        tags = dict(getattr(opened, "tag_v2", {}))
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        image: Image.Image = opened
    exponent = _exponent(image)
    signed = tags.get(SAMPLE_FORMAT) == SIGNED and tags.get(BITS) == (8,)
    if image.mode[0] in "IF" or signed:
        pixels = finite(np.asarray(image), path)
        values, places = distinct(pixels.view(np.int8) if signed else pixels)
        # What is transparent is not part of the picture.
        clear = image.info.get("transparency")
        return Greys(
            values,
            scale=None,
            inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO,
            background=None if clear is None else values == clear,
            exponent=exponent,
            places=places,
        )
    shown = _uncovered(image)
    if exponent == 1:
        return shown
    return shown.point([round(255 * (v / 255) ** exponent) for v in range(256)] * len(shown.mode))


def _exponent(image: Image.Image) -> float:
    """Return the power of a grey in [0, 1] that a PNG's gamma asks for; 1 where it asks for none.

    A colour space that is named goes before a gamma, and most gammas are the display's own.
    """
    gamma = image.info.get("gamma")
    if not gamma or "srgb" in image.info or "icc_profile" in image.info:
        return 1.0
    exponent = 1 / (gamma * DISPLAY_GAMMA)
    return 1.0 if abs(exponent - 1) < 0.05 else float(exponent)


def _uncovered(image: Image.Image) -> Image.Image:
    """Return an image as grey or RGB; what is transparent is not part of it, and black."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, layers).convert("RGB")
    return image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr", "1") else image
