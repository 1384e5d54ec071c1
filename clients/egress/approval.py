"""A person's yes to a run at a site, where its policy asks for one (``approve-runs``).

::

    approvals/<site>.<run>.json   what was asked for, and who said yes to it, when

A yes is to a run's name, configuration and code together: if one of them changes, it is asked for
anew. Nothing of a run is computed, and nothing but the sentence that a yes is awaited leaves,
before it is given.
"""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clients.identity import Identity
from common.errors import ApprovalError, PolicyError
from common.exchange.fingerprint import code_fingerprint
from common.files import write_json
from common.formatting.from_json import from_json


@dataclass(frozen=True)
class Request:
    """A run that a site is asked to take part in."""

    run: str
    site: str
    """Their names."""
    config: str
    code: str
    """SHA-256 of the run's configuration and of the code that the site would run."""
    settings: dict[str, str | int | float | bool]
    """The configuration by key."""
    asked: str
    """When it was first asked for: ISO 8601, UTC."""
    approved_by: str = ""
    approved: str = ""
    """Who said yes, and when; empty before."""


def require_approval(identity: Identity, run: str) -> None:
    """Let a run go on that a person has approved; note one that nobody has, and refuse it.

    Raises
    ------
    ApprovalError
        If nobody has approved this run with this configuration and code.
    """
    asked = Request(
        run=run,
        site=identity.site,
        config=identity.config.digest(),
        code=code_fingerprint(),
        settings=dict(identity.config.to_run_config()),
        asked=_now(),
    )
    path = _file(identity.base, identity.site, run)
    before = _read(path) if path.exists() else asked
    if (before.config, before.code) != (asked.config, asked.code):
        before = asked
    if before.approved:
        return
    if before is asked:
        write_json(path, asdict(asked))
    raise ApprovalError(
        f"Nobody has approved the run '{run}' at {identity.site}: look at it with `xsite approve "
        f"{identity.base}`, and say yes with `xsite approve {identity.base} {run}`."
    )


def requests(state: Path) -> list[Request]:
    """Return what a site was asked, the oldest first.

    Parameters
    ----------
    state : Path
        The site's ``state-dir``.

    Raises
    ------
    PolicyError
        If a file is damaged.
    """
    found = [_read(path) for path in (state / "approvals").glob("*.json")]
    return sorted(found, key=lambda request: request.asked)


def approve(state: Path, run: str, by: str) -> Request:
    """Say yes to a run.

    Parameters
    ----------
    state : Path
        The site's ``state-dir``.
    run : str
        The run's name.
    by : str
        Who says so.

    Raises
    ------
    PolicyError
        If the site was not asked for the run.
    """
    known = {request.run: request for request in requests(state)}
    if run not in known:
        names = ", ".join(known) or "none"
        raise PolicyError(f"{state} was not asked for a run '{run}'. Runs asked for: {names}.")
    if known[run].approved:
        return known[run]
    said = replace(known[run], approved_by=by, approved=_now())
    write_json(_file(state, said.site, run), asdict(said))
    return said


def _file(state: Path, site: str, run: str) -> Path:
    return state / "approvals" / f"{site}.{run}.json"


def _read(path: Path) -> Request:
    try:
        found = from_json(Request, path.read_bytes())
        if path.name != f"{found.site}.{found.run}.json":
            raise ValueError(f"it is of the run {found.run} at {found.site}")
        return found
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"{path} is damaged; remove it, and the run is asked for anew."
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
