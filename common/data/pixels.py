"""What holds of every image's pixels, whatever its format."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import SiteError


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
