"""The errors of xsite: one sentence each, for the person who can act on it."""


class XsiteError(Exception):
    """Base of every error that xsite raises on purpose.

    The message says what was expected, what was found, where (file, site, round) and what to do.
    ``exit_code`` is what the ``xsite`` command ends with.
    """

    exit_code = 1


class ConfigError(XsiteError):
    """A configuration key is unknown, has a wrong type, or contradicts another."""

    exit_code = 2


class SiteError(XsiteError):
    """A site's folder, or one of its files, is not fit for training."""


class CheckpointError(XsiteError):
    """A file of weights cannot be read or belongs to another network."""


class StoreError(XsiteError):
    """A site's private store cannot be read or belongs to another site or network."""


class ReplyError(XsiteError):
    """A site's reply does not fit the schema; the site is left out of the round."""


class RunError(XsiteError):
    """A run cannot start or go on."""


class PolicyError(XsiteError):
    """A site's policy lets a message not leave, or cannot be read."""


class ApprovalError(PolicyError):
    """A person at the site must approve the run first."""


class LedgerError(XsiteError):
    """A site's ledger was changed, is incomplete, or cannot be written."""
