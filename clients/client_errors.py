"""What may leave a site when something goes wrong there: a sentence written in advance.

Flower sends the text of an exception to the server, and such a text names files, folders and
patients. Here the reply says which kind of thing failed, at which site, with a reference; the
exception itself goes into the site's own log under that reference.
"""

import logging
import secrets
import traceback
from pathlib import Path

import torch
from flwr.app import Error

from clients.identity import IdentityError
from clients.site import note
from common.errors import (
    ApprovalError,
    CheckpointError,
    ConfigError,
    LedgerError,
    PolicyError,
    ReplyError,
    RunError,
    SiteError,
    StoreError,
)
from common.exchange.messages import AWAITS_APPROVAL, NOT_A_SITE

KINDS: tuple[tuple[type[Exception], int, str], ...] = (
    (IdentityError, NOT_A_SITE, "this node is no site of the run"),
    (ConfigError, 102, "the configuration does not fit this machine"),
    (SiteError, 103, "the site's folder, or a file in it, is not fit for training"),
    (CheckpointError, 104, "weights that the run starts from cannot be used here"),
    (StoreError, 105, "the private store cannot be used for this order"),
    (ReplyError, 106, "the message could not be understood; the server may run other code"),
    (RunError, 107, "the round could not be completed"),
    (ApprovalError, AWAITS_APPROVAL, "a person at the site must approve the run first"),
    (PolicyError, 110, "the site's policy keeps this here"),
    (LedgerError, 111, "the site's ledger cannot be written, and without it no result leaves"),
    (MemoryError, 108, "the machine is short of memory"),
    (torch.OutOfMemoryError, 108, "the GPU is short of memory"),
    (OSError, 109, "a file could not be read or written"),
)
UNEXPECTED = (100, "something unexpected happened")


def refuse(error: Exception, site: str, own: Path | None) -> Error:
    """Log an exception at the site and return what may be said of it elsewhere.

    Parameters
    ----------
    error : Exception
        What happened.
    site : str
        The site's name; ``""`` where it is not known.
    own : Path or None
        The folder of the site's log; None where it is not known. The node's own output gets the
        exception then.

    Returns
    -------
    Error
        Nothing in it comes from the exception but its kind.
    """
    code, sentence = next(
        ((code, text) for kind, code, text in KINDS if isinstance(error, kind)), UNEXPECTED
    )
    reference = secrets.token_hex(4)
    details = "".join(traceback.format_exception(error))
    if own is not None:
        note(own, f"reference {reference}: {details}")
        where = "Its log.txt"
    else:
        logging.getLogger("xsite.site").error("reference %s: %s", reference, details)
        where = "The node's output"
    return Error(
        code,
        f"{site or 'an unnamed node'}: {sentence} (code {code}, reference {reference}). "
        f"{where} says more.",
    )
