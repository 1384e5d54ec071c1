"""Write into a run's folder why it ended early."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from common.errors import XsiteError
from common.runs.folder import RunFolder


@contextmanager
def ending_told(folder: RunFolder, stopped: str) -> Iterator[None]:
    """Write into a run's folder why a block ended early, if it does.

    Parameters
    ----------
    folder : RunFolder
        The run's.
    stopped : str
        What to write if it was neither an error nor the end: a Ctrl-C, a signal.

    Raises
    ------
    BaseException
        What the block raised, unchanged.
    """
    try:
        yield
    except BaseException as error:
        # The disk may be what failed; the error that matters is the first one.
        with suppress(XsiteError):
            if not isinstance(error, Exception):
                folder.fail("interrupted", stopped)
            else:
                if not isinstance(error, XsiteError):
                    folder.log("".join(traceback.format_exception(error)))
                folder.fail("failed", str(error) or type(error).__name__)
        raise
