"""The ledger: what a kill leaves is mended, what anybody else did is found."""

import random
import shutil
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest

from clients.egress.ledger import (
    BEGINNING,
    BLOCK,
    Head,
    LedgerPart,
    Message,
    Noise,
    Release,
    canonical,
    enter,
    entries,
    entry_after,
    read_line,
    verify,
)
from common.errors import LedgerError

PART = LedgerPart("shared", "body.weight", (2, 3), "float32", 24, "ab" * 32)
NOISE = Noise("site", 1e-5, (Release("shared", 0.1, 1), Release("prototypes", 2.5, 2)))
# As xsite wrote it before there was noise.
BEFORE_NOISE = (
    b'{"hash":"6bc4c6c3996fb8d7b26aaa315ededab7b4128e93f3de1291896ae08b7c40a9fe",'
    b'"message":"training","number":1,"parts":[{"dtype":"float32","name":"w","record":"shared",'
    b'"sha256":"%s","shape":[2],"size":8}],"previous":"%s","reason":"","round":1,"run":"run",'
    b'"site":"north","size":30,"time":"2026-11-22T08:49:36.140+00:00","verdict":"sent"}\n'
) % (b"ab" * 32, b"0" * 64)


def message(round: int, **values: object) -> Message:
    told = {"site": "north", "run": "run", "round": round, "message": "training"}
    return Message(
        **{**told, "verdict": "sent", "reason": "", "size": 30, "parts": (PART,), **values}
    )


def written(folder: Path, count: int = 5, full: int = 1200) -> Path:
    """Write a ledger of some lines; a line takes about 400 bytes, so a few fill a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clients.egress.ledger.FULL", full)
        for round in range(count):
            noise = NOISE if round % 2 else None
            enter(folder, message(round, reason="é\n", noise=noise))
    return folder


def test_lines_come_back_as_they_were_entered(tmp_path: Path) -> None:
    folder = written(tmp_path / "ledger")
    found = list(entries(folder))
    assert [one.number for one in found] == [1, 2, 3, 4, 5]
    assert [one.round for one in found] == [0, 1, 2, 3, 4]
    assert found[0].parts == (PART,) and found[0].reason == "é\n"
    assert [one.noise for one in found] == [None, NOISE, None, NOISE, None]
    assert found[0].previous == BEGINNING
    assert [one.previous for one in found[1:]] == [one.hash for one in found[:-1]]
    assert len(list(folder.glob("ledger-*.jsonl"))) == 2
    head = verify(folder, [found[1].hash])
    assert (head.entries, head.hash) == (5, found[-1].hash)


def test_a_line_from_before_there_was_noise_is_whole_and_one_without_it_looks_the_same(
    tmp_path: Path,
) -> None:
    old = read_line(BEFORE_NOISE, Head(0, BEGINNING), "here")
    assert old.noise is None and old.line() == BEFORE_NOISE
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "ledger-0001.jsonl").write_bytes(BEFORE_NOISE)
    assert enter(folder, message(2, noise=NOISE)).previous == old.hash
    assert verify(folder).entries == 2 and next(entries(folder)) == old


def test_who_is_asked_sees_all_lines_and_decides_before_anything_is_written(
    tmp_path: Path,
) -> None:
    folder, seen = written(tmp_path / "ledger", 3), []
    enter(folder, message(3), allow=lambda before: seen.extend(one.round for one in before))
    assert seen == [0, 1, 2]

    def refuse(_: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        enter(folder, message(4), allow=refuse)
    assert verify(folder).entries == 4 and enter(folder, message(4)).number == 5


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "ledger", 1)
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("ledger-0001.jsonl", "head.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "ledger")
    files = [*folder.glob("ledger-*.jsonl"), folder / "head.json"]
    draw = random.Random(0)
    for _ in range(1000):
        path = draw.choices(files, [file.stat().st_size for file in files])[0]
        before = path.read_bytes()
        place = draw.randrange(len(before))
        changed = bytes([before[place] ^ draw.randrange(1, 256)])
        path.write_bytes(before[:place] + changed + before[place + 1 :])
        with pytest.raises(LedgerError):
            verify(folder)
        path.write_bytes(before)
    verify(folder)


@pytest.mark.parametrize("gone", ["first", "middle", "last", "file", "all", "head"])
def test_what_is_missing_is_found_and_nothing_more_is_entered(tmp_path: Path, gone: str) -> None:
    folder = written(tmp_path / "ledger")
    first, second = sorted(folder.glob("ledger-*.jsonl"))
    if gone == "file":
        first.unlink()
    elif gone == "all":
        first.unlink(), second.unlink()
    elif gone == "head":
        (folder / "head.json").unlink()
    else:
        path = second if gone == "last" else first
        lines = path.read_bytes().splitlines(keepends=True)
        lines.pop({"first": 0, "middle": 1, "last": -1}[gone])
        path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError):
        verify(folder)
    if gone in ("last", "all", "head"):
        with pytest.raises(LedgerError, match=r"[Nn]othing leaves|were taken"):
            enter(folder, message(9))


def test_half_a_line_of_a_killed_process_is_taken_away(tmp_path: Path) -> None:
    folder = written(tmp_path / "ledger", 2)
    path = folder / "ledger-0001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number":3,"ti')
    with pytest.raises(LedgerError):
        verify(folder)
    assert enter(folder, message(2)).number == 3
    assert path.read_bytes().startswith(whole) and verify(folder).entries == 3


@pytest.mark.parametrize("cut", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_half_of_a_line_longer_than_what_is_read_at_once_is_taken_away(
    tmp_path: Path, cut: int
) -> None:
    many = (PART,) * 1000
    folder = tmp_path / "ledger"
    for round in range(2):
        enter(folder, message(round, parts=many))
    path, head = folder / "ledger-0001.jsonl", (folder / "head.json").read_bytes()
    whole = path.read_bytes()
    enter(folder, message(2, parts=many))
    assert path.stat().st_size > len(whole) + cut
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    (folder / "head.json").write_bytes(head)
    assert enter(folder, message(3)).number == 3
    assert path.read_bytes().startswith(whole) and verify(folder).entries == 3


def test_a_message_is_entered_without_reading_all_that_was_entered_before(tmp_path: Path) -> None:
    folder, head, lines = tmp_path / "ledger", Head(0, BEGINNING), []
    for round in range(8000):
        entry = entry_after(head, message(round))
        lines.append(entry.line())
        head = Head(entry.number, entry.hash)
    enter(folder, message(0))
    path = folder / "ledger-0001.jsonl"
    path.write_bytes(b"".join(lines))
    (folder / "head.json").write_bytes(canonical(asdict(head)) + b"\n")
    assert path.stat().st_size > 3_000_000
    tracemalloc.start()
    try:
        assert enter(folder, message(8000)).number == 8001
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert verify(folder).entries == 8001


@pytest.mark.parametrize("before", [0, 2])
def test_a_line_that_the_head_does_not_know_of_yet_stays(tmp_path: Path, before: int) -> None:
    folder, copy = written(tmp_path / "ledger", before), tmp_path / "copy"
    if before:
        shutil.copy(folder / "head.json", copy)
    enter(folder, message(7))
    (folder / "head.json").unlink()
    if before:
        shutil.copy(copy, folder / "head.json")
    assert enter(folder, message(8)).number == before + 2
    assert verify(folder).entries == before + 2


def test_a_ledger_written_anew_is_told_by_a_noted_hash(tmp_path: Path) -> None:
    noted = verify(written(tmp_path / "one")).hash
    with pytest.raises(LedgerError, match="written anew"):
        verify(written(tmp_path / "two", 6), [noted])


def test_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no ledger"):
        verify(tmp_path)


def test_where_nothing_can_be_written_nothing_leaves(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a file where the folder should be")
    with pytest.raises(LedgerError, match="Nothing leaves"):
        enter(tmp_path / "ledger", message(0))
