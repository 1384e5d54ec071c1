"""A site's ledger for people: what left, how much, when, and what never did."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from clients.egress.budget import SENT, in_words, spent
from clients.egress.ledger import Entry, Head, LedgerPart, entries, verify
from clients.store import MOMENT, PRIVATE
from common.exchange.wire import (
    CARD,
    METHOD,
    METRICS,
    MOMENTS,
    PROTOTYPES,
    REPLY,
    SHARED,
    STATISTICS,
)
from common.formatting import numbers
from common.formatting.page import html_page, table_html
from common.formatting.tables import Group, Row, Table, plain_table
from common.tensor_files import load_tensors

FILES = ("store/*.safetensors", "private*.safetensors", "best-private*.safetensors")
MEANINGS: Mapping[str, str] = {
    SHARED: "Shared weights of the network",
    PROTOTYPES: "Class prototypes, with the number of images behind each",
    METHOD: "What methods send besides, by method",
    MOMENTS: "The optimizer's moments of the shared weights: means of gradients and their squares",
    METRICS: "Figures over all validation or test images, and of training",
    REPLY: "Who answers what: names, round, number of images, digest of the code",
    STATISTICS: "The greys of all training images together: mean, deviation, histogram",
    CARD: "The answer to the join request: names, digests, number of images of each class",
    "error": "A sentence written in advance, in place of a result",
}
KINDS = {
    CARD: "join request",
    "training": "round of training",
    "evaluation": "figures",
    "error": "error",
}

ALARM = (
    '<div class="callout warn"><strong>Private tensors left this site</strong>\n'
    '<ul class="plain">{names}</ul></div>'
)
BUDGET_NOTES = (
    "A noise multiplier is the standard deviation of the noise, as a multiple of how far other "
    "images could move what is sent. From it and how often it was used, Opacus's Rényi accountant "
    "counts ε, an upper bound.",
    "Protected are all images of the site together: whoever has everything that left can tell them "
    "from any others of which the site info says the same only as far as ε and δ allow. So each "
    "patient is protected at least as far. The smaller ε, the less can be told; from about 10 on "
    "it is little protection.",
    "Not covered: numbers of images, which leave exactly in the answer to the join request and "
    "with each round; that a round failed; when messages left.",
)


@dataclass(frozen=True)
class Audit:
    """One private file, looked up in the ledger.

    The ledger has the SHA-256 of every tensor that left, and the private tensors lie on the site's
    own disk; so whether anything of them left can be looked up, and need not be believed.
    """

    file: Path
    """The file."""
    tensors: int
    """Private tensors in it that were looked up."""
    skipped: int
    """Tensors of one value throughout, such as counters and what is still at its start: others are
    equal to them without having come from them."""
    left: tuple[str, ...]
    """Names of those that did leave: none, if all is well."""


@dataclass(frozen=True)
class Account:
    """A ledger, checked and read."""

    folder: Path
    """The ledger's."""
    head: Head
    """How far it goes."""
    entries: tuple[Entry, ...]
    """Its lines."""
    audits: tuple[Audit, ...]
    """The site's private files, held against them."""

    @property
    def sent(self) -> tuple[Entry, ...]:
        """What left."""
        return tuple(entry for entry in self.entries if entry.verdict == SENT)

    @property
    def held_back(self) -> tuple[Entry, ...]:
        """What the policy kept here."""
        return tuple(entry for entry in self.entries if entry.verdict != SENT)

    @property
    def left(self) -> tuple[str, ...]:
        """Private tensors that left; there should be none."""
        return tuple(f"{one.file}: {name}" for one in self.audits for name in one.left)


def take_account(folder: Path) -> Account:
    """Check and read a ledger, and hold the site's private files against it.

    Parameters
    ----------
    folder : Path
        The ledger's; it lies in the site's folder.

    Raises
    ------
    LedgerError
        If there is none, or it was changed.
    CheckpointError
        If a private file cannot be read.
    """
    head = verify(folder)
    lines = tuple(entries(folder))
    sent = [entry for entry in lines if entry.verdict == SENT]
    return Account(folder, head, lines, tuple(audit(folder.parent, sent)))


def audit(state: Path, ledger: Iterable[Entry]) -> list[Audit]:
    """Look up every private tensor below a site's folder in its ledger.

    Parameters
    ----------
    state : Path
        The site's ``state-dir``, or the folder of its files in a simulated run.
    ledger : iterable of Entry
        What left.

    Returns
    -------
    list of Audit
        One a file, by path.

    Raises
    ------
    CheckpointError
        If a file cannot be read.
    """
    digests = {part.sha256 for entry in ledger for part in entry.parts}
    places = [pattern for one in FILES for pattern in (one, f"*/sites/*/{one}")]
    files = sorted({path for pattern in places for path in state.glob(pattern)})
    return [_look_up(path, digests) for path in files]


def _look_up(path: Path, digests: set[str]) -> Audit:
    private, _ = load_tensors(path)
    if path.parent.name == "store":
        # The store also keeps what the site sent, if its objective looks back at it.
        private = {n: tensor for n, tensor in private.items() if n.startswith((PRIVATE, MOMENT))}
    telling = {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in private.items()
        if tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())
    }
    left = tuple(name for name, digest in telling.items() if digest in digests)
    return Audit(path, len(telling), len(private) - len(telling), left)


def account_facts(account: Account) -> list[tuple[str, str]]:
    """Return what is to be said of a ledger as a whole."""
    told = [
        ("Ledger", str(account.folder)),
        ("Left", f"{_messages(account.sent)}, {numbers.size(_bytes(account.sent))}"),
        ("Held back", _messages(account.held_back)),
    ]
    if account.entries:
        told.append(("From", f"{_time(account.entries[0])} to {_time(account.entries[-1])}"))
    looked = sum(one.tensors for one in account.audits)
    told += [
        ("Privacy budget", in_words(spent(account.entries))),
        ("Private tensors", f"{len(account.left)} of {looked} were found among what left"),
        ("Lines", f"{account.head.entries}, each unchanged since it was written"),
        ("Hash of the last line", account.head.hash),
    ]
    return told


def runs_table(account: Account) -> Table:
    """Return how much left in each run, and when."""
    rows = []
    for run, site in dict.fromkeys((entry.run, entry.site) for entry in account.entries):
        own = [entry for entry in account.entries if (entry.run, entry.site) == (run, site)]
        sent = [entry for entry in own if entry.verdict == SENT]
        kinds = Counter(KINDS.get(entry.message, entry.message) for entry in sent)
        row = (
            run,
            site,
            numbers.listed([f"{count} × {kind}" for kind, count in kinds.items()]),
            str(len(own) - len(sent)),
            numbers.size(_bytes(sent)),
            _time(own[0]),
            _time(own[-1]),
        )
        rows.append(row)
    columns = ("Run", "Site", "Left", "Held back", "Size", "First", "Last")
    return plain_table("Messages by run", columns, rows, prose=True)


def parts_tables(account: Account) -> tuple[Table, Table]:
    """Return what kinds of things were in the messages that left, and all of it by name."""
    parts = [part for entry in account.sent for part in entry.parts]
    rows, groups = [], []
    for record in dict.fromkeys(part.record for part in parts):
        own = [part for part in parts if part.record == record]
        size = numbers.size(sum(part.size for part in own))
        count = len({part.name for part in own})
        rows.append((record, MEANINGS.get(record, record), str(count), size))
        names = dict.fromkeys((part.name, part.dtype) for part in own)
        named = [
            _row(name, dtype, [p for p in own if (p.name, p.dtype) == (name, dtype)])
            for name, dtype in names
        ]
        groups.append(Group(record, named))
    columns = ("In a message", "What it is", "Of them", "Size in all")
    contents = plain_table("What was in them", columns, rows, prose=True)
    columns_of_parts = ("Name", "Kind", "Shape", "Times", "Bytes in all")
    return contents, Table("All of it by name", columns_of_parts, groups, prose=True)


def budget_table(account: Account) -> Table | None:
    """Return with how much noise what left; None where nothing left with any."""
    held = spent(account.entries)
    if not held.noise:
        return None
    rows = [
        (record, MEANINGS[record], f"{multiplier:g}", str(times))
        for (record, multiplier), times in held.noise.items()
    ]
    columns = ("In a message", "What it is", "Noise multiplier", "Values with noise of their own")
    return plain_table("Noise", columns, rows, BUDGET_NOTES, prose=True)


def held_back_table(account: Account) -> Table | None:
    """Return what the policy kept here and why; None where there is nothing."""
    if not account.held_back:
        return None
    rows = [
        (_time(entry), entry.run, str(entry.round), entry.reason) for entry in account.held_back
    ]
    return plain_table("Held back", ("Time", "Run", "Round", "Why"), rows, prose=True)


def audit_table(account: Account) -> Table:
    """Return what was looked up to say what never left."""
    rows = [
        (
            str(one.file.relative_to(account.folder.parent)),
            str(one.tensors),
            str(one.skipped),
            ", ".join(one.left) or "none",
        )
        for one in account.audits
    ]
    return plain_table(
        "Private tensors that are on this site's disk",
        ("File", "Looked up", "Skipped", "Found among what left"),
        rows,
        prose=True,
    )


def messages_table(account: Account) -> Table:
    """Return every line."""
    rows = [
        (
            str(entry.number),
            _time(entry),
            entry.run,
            str(entry.round),
            KINDS.get(entry.message, entry.message),
            entry.verdict,
            numbers.size(entry.size),
            entry.hash[:16],
        )
        for entry in account.entries
    ]
    columns = ("Line", "Time", "Run", "Round", "Answer to", "Verdict", "Size", "Hash")
    return plain_table("Every message", columns, rows, prose=True)


def render(account: Account) -> str:
    """Return the ledger as one HTML page."""
    contents, parts = parts_tables(account)
    tables = {
        "runs": runs_table(account),
        "contents": contents,
        "parts": parts,
        "noise": budget_table(account),
        "held_back": held_back_table(account),
        "audits": audit_table(account),
        "messages": messages_table(account),
    }
    facts = (
        f"<div><dt>{escape(what)}</dt><dd>{escape(answer)}</dd></div>"
        for what, answer in account_facts(account)
    )
    names = "".join(f"<li>{escape(name)}</li>" for name in account.left)
    sections = Template(
        (Path(__file__).parent / "ledger.html").read_text(encoding="utf-8")
    ).substitute(
        {name: table_html(table) if table else "" for name, table in tables.items()},
        facts="\n".join(facts),
        alarm=ALARM.format(names=names) if names else "",
        kept=_messages(account.held_back),
        budget=escape(in_words(spent(account.entries))),
    )
    sites = numbers.listed(list(dict.fromkeys(entry.site for entry in account.entries)))
    note = "Read from a ledger whose every line was checked."
    return html_page(f"What left {sites}", note, sections)


def _row(name: str, dtype: str, parts: Sequence[LedgerPart]) -> Row:
    shapes = dict.fromkeys(" × ".join(map(str, part.shape)) for part in parts)
    cells = (dtype, " or ".join(shapes), str(len(parts)), numbers.count(sum(p.size for p in parts)))
    return Row(name, cells)


def _messages(held: Sequence[Entry]) -> str:
    return f"{len(held)} {'message' if len(held) == 1 else 'messages'}"


def _bytes(held: Iterable[Entry]) -> int:
    return sum(entry.size for entry in held)


def _time(entry: Entry) -> str:
    return entry.time[:19].replace("T", " ") + " UTC"
