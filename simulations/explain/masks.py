"""Reading the masks of a site's folder: where in an image lesions and lungs lie."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.sections import ImageKeys
from common.data.augment import MEAN, SPREAD, prepare
from common.data.decode import decode_file
from common.data.folder import LUNG_MASKS, MASKS


def has_masks(root: Path) -> bool:
    """Return whether a site's folder holds masks of lesions and lungs."""
    return (root / MASKS).is_dir() and (root / LUNG_MASKS).is_dir()


def load_masks(folder: Path, files: Sequence[str], config: ImageKeys) -> NDArray[np.float32]:
    """Read the masks of some images of a site, as the network sees these in evaluation.

    They go through the functions that an image goes through, :func:`common.data.decode.decode_file`
    and :func:`common.data.augment.prepare`, so a mask lies where its image does.

    Parameters
    ----------
    folder : Path
        ``masks`` of a site's lesions, or ``masks-lungs``, which take in the lesions.
    files : sequence of str, length n
        Images as POSIX paths below the site's folder.
    config : ImageKeys
        Size of cached images and of those that the network sees.

    Returns
    -------
    ndarray of float32, shape (n, size, size)
        Share of each pixel that is lesion, or lung, 0 to 1; no lesion on a negative image.

    Raises
    ------
    SiteError
        If a mask is missing or cannot be decoded.
    """
    # A mask is grey whatever the images are.
    grey = config.model_copy(update={"channels": 1})
    decoded = np.empty((len(files), grey.cached_size, grey.cached_size, 1), np.uint8)
    for number, file in enumerate(files):
        decoded[number] = decode_file(folder / file, grey)
    if not len(files):
        return np.empty((0, config.image_size, config.image_size), np.float32)
    planes = prepare(torch.from_numpy(decoded), config.image_size)[:, 0] * SPREAD + MEAN
    return np.ascontiguousarray(planes.clamp(0, 1).numpy())
