"""The list of a run's sites as text: 'name' or 'name=folder' each, separated by commas."""

import re
from dataclasses import dataclass

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class SiteEntry:
    """One site of the list; its folder is '' where it lies below the folder of all sites."""

    name: str
    folder: str = ""

    def __str__(self) -> str:
        """Write it as it is read."""
        return f"{self.name}={self.folder}" if self.folder else self.name


def parse_site(text: str) -> SiteEntry:
    """Read 'name' or 'name=folder'."""
    name, _, folder = text.partition("=")
    return SiteEntry(name.strip(), folder.strip())


def parse_sites(text: str) -> tuple[SiteEntry, ...]:
    """Read a list of sites, in its order."""
    return tuple(parse_site(part) for part in text.split(",") if part.strip())
