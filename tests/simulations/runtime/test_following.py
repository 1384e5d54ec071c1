import json
from pathlib import Path

from simulations.runtime.following import RunWatch, Tail, copy_output, last_error, what_sites_say


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[tuple[str, int]] = []
        self.steps: list[tuple[int, float, float]] = []
        self.messages: list[str] = []

    def start(self, title: str, total_steps: int) -> None:
        self.titles.append((title, total_steps))

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        self.steps.append((done, loss, images_per_second))

    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None:
        pass


def own(run: Path, *sites: str) -> list[Path]:
    return [run / "sites" / site for site in sites]


def write_progress(run: Path, site: str, step: int, loss: float = 0.5) -> None:
    folder = run / "sites" / site
    folder.mkdir(parents=True, exist_ok=True)
    said = {"round": 1, "step": step, "total_steps": 10, "loss": loss, "images_per_second": 8.0}
    (folder / "progress.json").write_text(json.dumps(said))


def test_the_slowest_site_says_how_far_the_run_is(tmp_path: Path) -> None:
    told = Told()
    watch = RunWatch(tmp_path, own(tmp_path, "a", "b"), told, at_once=2)
    watch.update()
    assert not told.titles
    write_progress(tmp_path, "a", 4)
    watch.update()
    assert told.titles == [("federated training of 2 sites", 10)]
    assert told.steps == [(4, 0.5, 8.0)]
    write_progress(tmp_path, "a", 5)
    watch.update()
    # Site b has not spoken yet; until it does, the run is where it was first seen.
    assert told.steps[-1] == (4, 0.5, 8.0)
    write_progress(tmp_path, "b", 3, loss=0.25)
    watch.update()
    assert told.steps[-1] == (3, 0.25, 16.0)


def test_progress_from_before_a_resumption_and_halves_of_files_say_nothing(tmp_path: Path) -> None:
    told = Told()
    write_progress(tmp_path, "a", 9)
    watch = RunWatch(tmp_path, own(tmp_path, "a"), told, at_once=1)
    watch.update()
    (tmp_path / "sites" / "a" / "progress.json").write_text('{"step": 1')
    watch.update()
    assert not told.steps


def test_what_the_server_says_is_told_once_and_never_what_it_said_before_a_resumption(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.txt"
    log.write_text("2026-01-01T00:00:00+00:00  round 1/3: done\n")
    told = Told()
    watch = RunWatch(tmp_path, own(tmp_path, "a", "b"), told, at_once=2)
    with log.open("a") as file:
        file.write("2026-01-01T00:00:09+00:00  round 2/3: a loss 0.5;  b loss 0.6\n2026-01")
    watch.update()
    watch.update()
    assert told.messages == ["round 2/3: a loss 0.5;  b loss 0.6"]
    with log.open("a") as file:
        file.write("-01T00:00:10+00:00  completed\n")
    watch.update()
    assert told.messages[1:] == ["completed"]


def test_the_output_waits_for_the_run_and_is_copied_once_without_colours(tmp_path: Path) -> None:
    source, run = tmp_path / "server.log", tmp_path / "run"
    output = Tail(source)
    copy_output(output, run)
    source.write_bytes(b"\x1b[92mINFO \x1b[0m: begun\nhalf a li")
    copy_output(output, run)
    run.mkdir()
    (run / "config.toml").touch()
    copy_output(output, run)
    assert (run / "flower.txt").read_text() == "INFO : begun\n"
    with source.open("ab") as file:
        file.write(b"ne\n")
    copy_output(output, run)
    copy_output(output, run)
    assert (run / "flower.txt").read_text().splitlines() == [
        "INFO : begun",
        "half a line",
    ]


def test_the_last_exception_is_found(tmp_path: Path) -> None:
    source = tmp_path / "server.log"
    source.touch()
    assert last_error(source) == ""
    source.write_bytes(
        b"Traceback (most recent call last):\n  File x\nValueError: first: one\n"
        b"common.errors.RunError: site 'a' is missing\n\x1b[91mERROR\x1b[0m: Error: no\nbye\n"
    )
    assert last_error(source) == "site 'a' is missing"


def test_a_reference_leads_to_what_its_site_wrote(tmp_path: Path) -> None:
    for site, reference in (("a", "00000001"), ("b", "0badcafe")):
        folder = tmp_path / "sites" / site
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(
            "2026-01-01T00:00:00+00:00  ValueError: earlier\n"
            f"2026-01-01T00:00:01+00:00  reference {reference}: Traceback (most recent last):\n"
            f"OSError: the cause\n\nTraceback:\ncommon.errors.SiteError: {site} has no images.\n"
            "\n2026-01-01T00:00:02+00:00  ValueError: later\n"
        )
    reason = "b: unfit (code 103, reference 0badcafe). Its log.txt says more."
    folders = own(tmp_path, "a", "b", "without-a-log")
    assert what_sites_say(folders, reason) == "b says: b has no images."
    assert what_sites_say(folders, "nobody came") == ""
    assert what_sites_say(folders, "c: unfit (reference 12345678).") == ""
