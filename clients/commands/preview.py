"""``xsite preview``: an image as the network gets it, for who can read such images."""

import io
import math
from contextlib import closing
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console

from common.config.load import load_config, parse_override
from common.config.schema import Config
from common.config.sections import ImageKeys
from common.console import options
from common.console.progress import ProgressListener, StepCounter, make_listener
from common.console.text import say
from common.data.augment import MEAN, SPREAD, prepare
from common.data.cache import load_site
from common.data.decode import count_frames, frame_names, locate, pictures, read_header
from common.data.decode_all import decode_all
from common.data.folder import read_site
from common.data.open import cache_folder
from common.data.scale import Greys, Scale, window_in_words, window_of
from common.errors import ConfigError, RunError, SiteError, one_line
from common.files import write_atomic

MOST_PIXELS = 64_000_000
"""Of a sheet of frames; those that would make it larger are left out."""
STRIP = 14
"""Height of the strip above a frame that holds its number, in pixels."""


def preview(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An image; of several frames one as scan.dcm#3."),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="PNG", help="Write the image to this file.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    config: options.ConfigFile = None,
    set_: options.Settings = None,
) -> None:
    """Write an image as the network gets it when it is evaluated, and say how it came about.

    All frames of a file are written side by side, each below its number. Greys that name no scale
    follow the scale of the site in whose folder the file lies, where the configuration names it.
    The PNG holds the patient's image and nothing else of the file; only you may read it.
    """
    settings = load_config(config, dict(parse_override(text) for text in set_ or ()))
    _refuse_to_overwrite(file, output, force)
    with closing(make_listener()) as listener:
        view = look_through(file, settings, listener)
    data = io.BytesIO()
    sheet(view.images).save(data, "PNG")
    write_atomic(output, data.getvalue(), mode=0o600)
    console = Console()
    for sentence in view.said:
        say(console, sentence)
    say(console, f"View: {output}")


def _refuse_to_overwrite(file: Path, output: Path, force: bool) -> None:
    if output.suffix.lower() != ".png":
        raise ConfigError(f"--output is {output}; what is written is a PNG file: name it so.")
    if output.exists() and output.samefile(locate(file)[0]):
        raise ConfigError(f"--output is {output}, the image itself. Name another file.")
    if output.exists() and not force:
        raise RunError(f"{output} exists. Name another file, or overwrite it with --force.")


class View(NamedTuple):
    """Images of a file as the network gets them."""

    images: NDArray[np.uint8]
    """Shape (n, height, width, channels)."""
    said: tuple[str, ...]
    """What was done, in sentences."""


def look_through(file: Path, config: Config, listener: ProgressListener) -> View:
    """Decode a file and resize it as for evaluation.

    Parameters
    ----------
    file : Path
        The file, or one of its frames as ``scan.dcm#3``.
    config : Config
        Sizes, channels, window, scale and sites.
    listener : ProgressListener
        Told how far the decoding of a site is.

    Raises
    ------
    SiteError
        If the file, or another of its site, cannot be decoded.
    """
    path, frame = locate(file)
    names = [file.name] if frame else frame_names(path.name, count_frames(path))
    shown = names[: max(1, MOST_PIXELS // config.image_size**2)]
    images = [path.with_name(name) for name in shown]
    frames = [locate(image)[1] for image in images]
    ways = dict.fromkeys(_way(picture) for picture in pictures(path, frames, config))
    site, scale = "", None
    if any(not way.own for way in ways):
        site, scale = _site_and_scale(path, config, listener)
    size = config.cached_size
    cached = np.empty((len(images), size, size, config.channels), np.uint8)

    def fail(_: Path, error: SiteError) -> None:
        raise error

    scale, _ = decode_all(images, config, cached.__setitem__, fail, scale)
    header = read_header(path.read_bytes(), path)
    said = [
        one_line(f"{file}: {header.kind}, {header.width} × {header.height} pixels"),
        *(
            f"{way.own or _in_words(scale, config, site)}"
            f"{', inverted as the file says' if way.inverted else ''}."
            for way in ways
        ),
        f"Squashed to {size} × {size} pixels, as it is cached, and resized to "
        f"{config.image_size} × {config.image_size}, as the network gets it.",
    ]
    if len(names) > 1:
        others = f"; name another as {names[-1]}" if len(shown) < len(names) else ""
        said.append(
            one_line(f"{len(shown)} of {len(names)} frames, each below its number{others}.")
        )
    return View(_evaluated(cached, config), tuple(said))


class _Way(NamedTuple):
    """How an image's values become what is shown."""

    own: str
    """What its file says, in words; '' where it names no scale."""
    inverted: bool


def _way(picture: Image.Image | Greys) -> _Way:
    if isinstance(picture, Image.Image):
        return _Way("Shown as the file says, in 8 bits", False)
    return _Way(f"Greys: {picture.said}" if picture.said else "", picture.inverted)


def _site_and_scale(
    path: Path, config: Config, listener: ProgressListener
) -> tuple[str, Scale | None]:
    """Return the site in whose folder a file lies, '' where it lies in none, and its scale."""
    place = path.parent.resolve()
    for name in config.site_names:
        root = config.site_folder(name)
        if root is not None and place.is_relative_to(root.resolve()):
            folder = read_site(name, root, config.class_names, config.own_class_names)
            counter = StepCounter(listener, f"Looking at the images of {name} for their scale")
            return name, load_site(folder, config, cache_folder(config), counter).scale
    return "", None


def _in_words(scale: Scale | None, config: ImageKeys, site: str) -> str:
    """Say what is black and white in greys that name no scale, and what says it."""
    if config.grey_low < config.grey_high:
        whose = "grey-low and grey-high"
    elif site:
        whose = f"the scale of the site '{site}'"
    else:
        whose = "from this file alone; name the site with --set sites=NAME=DIR to use its scale"
    if scale == window_of(config):
        window = window_in_words(config.window_center, config.window_width)
        return f"Greys: window {window} HU ({whose})"
    return f"Greys: {scale} shown as black to white ({whose})"


def _evaluated(cached: NDArray[np.uint8], config: ImageKeys) -> NDArray[np.uint8]:
    """Return cached images as they are evaluated, (n, size, size, channels) → 8 bits likewise."""
    planes = prepare(torch.from_numpy(cached), config.image_size) * SPREAD + MEAN
    greys = (planes[:, : config.channels].movedim(1, 3) * 255).round().clamp(0, 255)
    return greys.to(torch.uint8).numpy()


def sheet(images: NDArray[np.uint8]) -> Image.Image:
    """Return one image, or several in rows, each below its number.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, channels)
        The images.
    """
    made = [Image.fromarray(one.squeeze(2) if one.shape[2] == 1 else one) for one in images]
    if len(made) == 1:
        return made[0]
    columns = math.ceil(math.sqrt(len(made)))
    width, height = made[0].width, made[0].height + STRIP
    whole = Image.new(made[0].mode, (columns * width, math.ceil(len(made) / columns) * height))
    draw = ImageDraw.Draw(whole)
    for place, one in enumerate(made):
        left, top = place % columns * width, place // columns * height
        draw.text((left + 2, top + 1), str(place + 1), fill="white")
        whole.paste(one, (left, top + STRIP))
    return whole
