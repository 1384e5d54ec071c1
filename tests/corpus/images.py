"""Image files that are not what their names say, or not as usual."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.corpus.case import Case
from tests.corpus.sites import SPOILT, write_site

GREYS = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(48) * 2, np.arange(40) * 3).astype(np.uint8)
"""What a JPEG keeps within a few greys."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file of a kind."""
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    """Return a PNG of 8-bit greys that says its size and holds whatever data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [header, *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PNG = encoded(Image.fromarray(GREYS), "PNG")
JPEG = encoded(Image.fromarray(SMOOTH), "JPEG", quality=95)
TIFF = encoded(Image.fromarray(GREYS), "TIFF")


def animation() -> bytes:
    frames = [Image.fromarray(np.full((20, 20), 40 * n, np.uint8)) for n in range(4)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"


def not_a_number() -> bytes:
    values = np.ones((20, 20), np.float32)
    values[3, 3] = np.nan
    return encoded(Image.fromarray(values), "TIFF")


def lab() -> bytes:
    return encoded(
        Image.fromarray(np.full((20, 20, 3), 90, np.uint8), "RGB").convert("LAB"), "TIFF"
    )


def stack() -> bytes:
    pages = [Image.fromarray(np.roll(GREYS, n)) for n in range(3)]
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def flipped_in_the_middle(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def covered() -> bytes:
    """Return greys of which the right half is transparent."""
    alpha = np.where(np.arange(40) < 20, 255, 0).astype(np.uint8)
    return encoded(Image.fromarray(np.dstack([GREYS, np.tile(alpha, (48, 1))]), "LA"), "PNG")


def printed() -> bytes:
    """Return greys as black ink alone."""
    ink = np.zeros((48, 40, 4), np.uint8)
    ink[..., 3] = 255 - SMOOTH
    return encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(SMOOTH), "JPEG", exif=exif, quality=95)


def image(
    name: str,
    why: str,
    content: bytes | Callable[[], bytes],
    said: str = "",
    suffix: str = "png",
    shows: NDArray[Any] | None = None,
) -> Case:
    """Return the case of a sound site with one such file more."""

    def make(root: Path) -> None:
        write_site(root)
        data = content if isinstance(content, bytes) else content()
        (root / "covid" / f"{SPOILT}.{suffix}").write_bytes(data)

    what = None if shows is None else lambda: [shows]
    return Case(name, why, make, rf"{SPOILT}\.{suffix} {said}" if said else "", what)


NO_IMAGE = "is not an image, whatever its name says"
DAMAGED = r"is (truncated or )?damaged"
IMAGES = (
    image("0 bytes", "a copy that a full disk ended", b"", r"is empty \(zero bytes\)"),
    image("zeros", "a copy whose blocks were never written", bytes(5000), NO_IMAGE),
    image("signature alone", "the first packet", PNG[:8], NO_IMAGE),
    image("PNG cut short", "a copy was broken off", PNG[: len(PNG) // 2], DAMAGED),
    image("JPEG cut short", "the same", JPEG[: len(JPEG) // 2], DAMAGED, "jpg"),
    image("TIFF cut short", "the same", TIFF[: len(TIFF) // 2], DAMAGED, "tif"),
    image(
        "one byte flipped", "an old disk: the checksum tells", flipped_in_the_middle(PNG), DAMAGED
    ),
    image("text", "a report was saved among the scans", b"Thorax CT, no findings\n" * 9, NO_IMAGE),
    image("a web page", "a download that needed a login", b"<!DOCTYPE html><html>" * 9, NO_IMAGE),
    image("a ZIP", "an archive under another name", b"PK\3\4" + bytes(200), NO_IMAGE),
    image("an animation", "which of its pictures is meant?", animation, NO_IMAGE),
    image("PostScript", "decoding it would run a program", postscript, NO_IMAGE, "eps"),
    image("a stack of pages", "which of its slices is meant?", stack, "holds 3 images", "tif"),
    image(
        "30,000 × 30,000 of nothing",
        "a few bytes that would take 900 MB",
        png(30_000, 30_000, b""),
        "says it has 30,000 × 30,000 pixels, more than the 100 million allowed",
    ),
    image("0 wide", "a header of zeros", png(0, 10, b""), DAMAGED + f"|{NO_IMAGE}"),
    image(
        "a bomb of text",
        "a comment of 1 KB that unpacks to 64 MB",
        png(2, 2, bytes(6), chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26)))),
        DAMAGED,
    ),
    image("data of another size", "a header that lies", png(40, 40, bytes(100)), DAMAGED),
    image("greys that are no numbers", "0 / 0", not_a_number, r"holds .* not finite", "tif"),
    image(
        "16 bits",
        "as scanners write",
        lambda: encoded(Image.fromarray(GREYS.astype(np.uint16) * 257), "PNG"),
        shows=GREYS,
    ),
    image(
        "palette",
        "as a screenshot",
        lambda: encoded(Image.fromarray(GREYS).convert("P"), "PNG"),
        shows=GREYS,
    ),
    image(
        "black and white",
        "1 bit",
        lambda: encoded(Image.fromarray(GREYS > 127), "PNG"),
        shows=np.where(GREYS > 127, 255, 0),
    ),
    image("transparent", "an overlay", covered, shows=np.where(np.arange(40) < 20, GREYS, 0)),
    image("CMYK", "as for print", printed, suffix="jpg", shows=SMOOTH),
    image("CIELAB", "as for print", lab, "holds LAB colours", "tif"),
    image("JPEG named PNG", "renamed by hand", JPEG, shows=SMOOTH),
    image(
        "1 × 1",
        "a spacer",
        lambda: encoded(Image.new("L", (1, 1), 77), "PNG"),
        shows=np.full((1, 1), 77),
    ),
    image(
        "1 × 5000",
        "a scout's line",
        lambda: encoded(Image.fromarray(np.arange(5000)[:, None].astype(np.uint8)), "PNG"),
        shows=np.arange(5000)[:, None] % 256,
    ),
    image("turned by EXIF", "a photograph", turned, suffix="jpg", shows=SMOOTH.T[:, ::-1]),
    image("bytes after the end", "padded to blocks", PNG + bytes(512), shows=GREYS),
)
