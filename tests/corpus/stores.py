"""A hospital's private store, spoilt between two rounds."""

import json
import shutil
from pathlib import Path

from tests.corpus import tensors
from tests.corpus.case import Case
from tests.corpus.tensors import MISFITS, UNREADABLE

ROUND, MANIFEST = "round-0001.safetensors", "manifest.json"


def manifest(**values: object) -> object:
    """Return what changes the manifest."""

    def make(store: Path) -> None:
        told = json.loads((store / MANIFEST).read_text()) | values
        (store / MANIFEST).write_text(json.dumps(told))

    return make


def says(content: bytes) -> object:
    return lambda store: (store / MANIFEST).write_bytes(content)


def manifest_is_a_folder(store: Path) -> None:
    (store / MANIFEST).unlink()
    (store / MANIFEST).mkdir()


def is_a_file(store: Path) -> None:
    shutil.rmtree(store)
    store.write_bytes(b"")


def links_to_itself(store: Path) -> None:
    shutil.rmtree(store)
    store.symlink_to(store)


def copied_by_hand(store: Path) -> None:
    shutil.copy(store / ROUND, store / "round-0001 (1).safetensors")


STORES = (
    *(
        Case(name, why, lambda store, spoil=spoil: spoil(store / ROUND), ROUND)
        for name, why, spoil in UNREADABLE
    ),
    *(
        Case(name, why, lambda store, spoil=spoil: spoil(store / ROUND), "The stored optimizer st")
        for name, why, spoil in MISFITS
    ),
    Case(
        "another site's file",
        "copied to the wrong place",
        lambda store: tensors.saying("site", "south")(store / ROUND),
        "private state of site 'south'",
    ),
    Case(
        "another run's file",
        "copied to the wrong place",
        lambda store: tensors.saying("run", "old")(store / ROUND),
        "private state of run 'old'",
    ),
    Case("no file", "taken away", lambda store: (store / ROUND).unlink(), "holds the rounds: none"),
    Case("manifest: 0 bytes", "a full disk", says(b""), "manifest.json is damaged"),
    Case("manifest: brackets", "a stack ends", says(b"[" * 100_000), "manifest.json is damaged"),
    Case("manifest: a list", "another program", says(b"[]"), "private state of site 'unknown'"),
    Case("manifest: of numbers", "another program", manifest(run=7), "private state of run '7'"),
    Case(
        "manifest: a folder", "in the file's place", manifest_is_a_folder, "manifest.json is dama"
    ),
    Case("a file", "in the store's place", is_a_file, "store"),
    Case("a link to itself", "made the wrong way", links_to_itself, "store"),
    Case("a copy by hand", "kept to be safe", copied_by_hand),
)
