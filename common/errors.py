"""The errors of xsite: one sentence each, for the person who can act on it."""

import difflib
from collections.abc import Iterable
from importlib.util import find_spec

LONGEST, END = 5000, 1000
"""Characters of a sentence, and how many of them are kept of its end, where the advice stands."""


def is_plain(text: str) -> bool:
    """Say whether a text has neither control characters nor what UTF-8 cannot hold."""
    return not any(
        ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000
        for char in text
    )


def one_line(text: str) -> str:
    """Return a text as it can stand on one line of a terminal, a log or a table.

    Names of files and what another machine said stand in sentences. They may hold line breaks,
    commands to the terminal or, as a name that is not UTF-8, what no file can be written with;
    these are escaped. What nobody would read to its end loses its middle.
    """
    shown = "".join(
        char if is_plain(char) else char.encode("unicode_escape").decode() for char in text
    )
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST - END]} … {shown[-END:]}"


class XsiteError(Exception):
    """Base of every error that xsite raises on purpose.

    The message says what was expected, what was found, where (file, site, round) and what to do.
    ``exit_code`` is what the ``xsite`` command ends with.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Return the sentence, on one line."""
        return one_line(super().__str__())


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


EXTRAS = {
    "jinja2": "research",
    "markupsafe": "research",
    "matplotlib": "research",
    "opacus": "privacy",
    "ray": "research",
    "torchcam": "research",
}
"""Which of xsite's extras brings a package that neither a site nor a server imports."""


def missing_extra(package: str) -> str:
    """Return the sentence that says how to get a package; '' where no extra brings it."""
    extra = EXTRAS.get(package.partition(".")[0])
    if extra is None:
        return ""
    return f"This needs {package}, which is not installed: pip install 'xsite[{extra}]'"


def require(package: str) -> None:
    """Refuse to go on where a package of one of xsite's extras is not installed.

    Raises
    ------
    ConfigError
        With the command that installs it.
    """
    if find_spec(package) is None:
        raise ConfigError(missing_extra(package))


def refuse_unknown(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of those known.

    Parameters
    ----------
    what : str
        What bears such a name: ``"method"``.
    name : str
        As it is asked for.
    known : iterable of str
        The names that there are, in the order in which they are listed.

    Raises
    ------
    ConfigError
        If it is none of them, naming the nearest, or all where none is near.
    """
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
        raise ConfigError(f"No {what} is called '{name}'. {hint}")
