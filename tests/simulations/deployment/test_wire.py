"""What really goes over the wire of a deployment: every byte that SuperNodes send and get.

A proxy ends their TLS. What it recorded is searched for all that is private at the sites, with
searches that are shown to find what is planted, and held against the sites' ledgers.
"""

import getpass
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from numpy.typing import NDArray

from clients.commands.ledger_page import FILES
from clients.egress.gate import parts_of
from clients.egress.ledger import entries, verify
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.errors import RunError
from common.exchange.messages import RoundReply
from common.exchange.wire import SHARED, count_bytes, decode
from common.learning.local_site import open_site
from common.runs.predictions import read_predictions
from common.tasks.task import task_layout
from common.tensor_files import load_tensors
from simulations.federated import train_federated
from simulations.rehearsal import DEPLOYMENT, own_folder
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.federation.search import FLOATS, Wire, pieces, pieces_as, words_of
from tests.simulations.deployment.recorder import Capture, Recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHUNK = 2**16
ERIKA = "patient-Erika-Mustermann-0001"


def in_small_chunks(consortium: Path) -> None:
    """Have the nodes cut arrays into pieces of 64 KiB, so that even a tiny network is cut."""
    for script in consortium.glob("*/supernode.sh"):
        export = f"export FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE={CHUNK}\nexec "
        script.write_text(script.read_text().replace("\nexec ", "\n" + export))


@dataclass(frozen=True)
class Deployed:
    """A run, all that went over its wire, and the private tensors that the sites had meanwhile.

    ``wires``: what each site sent, and what it got; ``shared``: what it sent of shared tensors;
    ``left``: command lines of processes that are still there.
    """

    config: Config
    run: Path
    capture: Capture
    wires: dict[str, tuple[Wire, Wire]]
    private: dict[str, NDArray[np.floating]]
    shared: dict[str, list[NDArray[np.floating]]]
    left: list[str]

    def all(self) -> list[Wire]:
        return [wire for both in self.wires.values() for wire in both]

    def found(self, wanted: list[bytes]) -> list[bytes]:
        return [piece for wire in self.all() for piece in wire.found(wanted)]

    def state(self, site: str) -> Path:
        return own_folder(self.run, site).parents[2]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    settings = {"epochs": 2, "validation_fraction": 0.3, "batch_size": 4}
    # No prototype that a hospital's own policy would keep, and a simulation's would not.
    config = tiny_config(tmp_path_factory.mktemp("wire"), **settings, min_prototype_count=4)
    private: dict[str, NDArray[np.floating]] = {}

    def collect(site: str, method: str) -> None:
        """Read what a site has on its disk whenever a reply is about to leave it."""
        if method != "push-messages":
            return
        own = own_folder(run_of(config), site)
        for path in (path for pattern in FILES for path in own.glob(pattern)):
            for name, tensor in load_tensors(path)[0].items():
                if tensor.is_floating_point() and tensor.numel() > 1:
                    private[f"{site}/{path.name}/{name}"] = tensor.numpy()

    recorder = Recorder(before=collect, prepare=in_small_chunks)
    before = set(psutil.pids())
    with recorder.between():
        run = train_federated(config, Path(config.runs_dir), ProgressListener(), backend=DEPLOYMENT)
    # Of a process that has ended and that nobody has asked about there is no command line.
    commands = {p.pid: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    new = [" ".join(words) for pid, words in commands.items() if pid not in before]
    left = [command for command in new if config.runs_dir in command]
    capture = recorder.capture()
    replies = {site: [decode_round(m) for m in capture.sent_by(site)] for site in config.site_names}
    shared = {site: [r.shared for r in own if r is not None] for site, own in replies.items()}
    wires = {site: (Wire(capture.up(site)), Wire(capture.down(site))) for site in replies}
    return Deployed(config, run, capture, wires, private, shared, left)


def decode_round(message: object) -> RoundReply | None:
    content = message.content
    return decode(RoundReply, content) if SHARED in content else None


def test_the_capture_is_complete(deployed: Deployed) -> None:
    """Every message in the ledgers is there, tensor by tensor, and the searches find it."""
    for site in deployed.config.site_names:
        layout = task_layout(deployed.config, site)
        ledger = list(entries(deployed.state(site) / "ledger"))
        messages = deployed.capture.sent_by(site)
        assert [entry.message for entry in ledger][:3] == ["card", "training", "training"]
        assert len(messages) == len(ledger)
        for entry, message in zip(ledger, messages, strict=True):
            assert parts_of(message.content, layout) == entry.parts
            assert count_bytes(message.content) == entry.size
        assert len(deployed.shared[site]) == 2
        up, _ = deployed.wires[site]
        for shared in deployed.shared[site]:
            assert shared.nbytes > 3 * CHUNK
            assert shared.tobytes() in up.content
            wanted = pieces(shared)[::97]
            assert len(wanted) > 200
            assert up.found(wanted) == wanted


def test_weights_and_predictions_are_those_of_a_simulation(
    deployed: Deployed, tmp_path: Path
) -> None:
    simulated = deployed.config.changed(runs_dir=str(tmp_path))
    federate(simulated)
    pairs = [(deployed.run / "shared.safetensors", run_of(simulated) / "shared.safetensors")]
    for site in simulated.site_names:
        own, there = own_folder(deployed.run, site), run_of(simulated) / "sites" / site
        pairs.append((own / "private.safetensors", there / "private.safetensors"))
        assert (own / "predictions.csv").read_bytes() == (there / "predictions.csv").read_bytes()
    for pair in pairs:
        # Not of the bytes: safetensors writes a file's metadata in any order.
        tensors, expected = (load_tensors(path)[0] for path in pair)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_no_process_stays_and_nothing_of_a_site_is_with_the_server(deployed: Deployed) -> None:
    assert deployed.left == []
    assert not (deployed.run / "sites").exists()


def test_what_the_ledgers_say_left_is_what_the_server_says_came(deployed: Deployed) -> None:
    sent = 0
    for site in deployed.config.site_names:
        ledger = deployed.state(site) / "ledger"
        kinds = [entry.message for entry in entries(ledger)]
        assert kinds[:3] == ["card", "training", "training"] and set(kinds[3:]) == {"evaluation"}
        assert verify(ledger).entries == len(kinds)
        sent += sum(entry.size for entry in entries(ledger) if entry.message != "card")
    assert json.loads((deployed.run / "result.json").read_text())["bytes"]["up"] == sent


def test_the_ledger_counts_what_is_sent_less_its_framing(deployed: Deployed) -> None:
    for site in deployed.config.site_names:
        pushed = deployed.capture.of(site, "push-messages", "push-object")
        sent = sum(len(one.sent) for one in pushed)
        ledger = list(entries(deployed.state(site) / "ledger"))
        counted = sum(entry.size for entry in ledger)
        tensors = sum(shared.nbytes for shared in deployed.shared[site])
        assert tensors <= counted <= sent
        # An object is named by 64 letters in its own request, in the message's tree and in its
        # parent; around it are names of node, run and session, and a record's description.
        objects = len(deployed.capture.of(site, "push-object"))
        assert sent - counted < 600 * (objects + len(ledger))
        print(f"{site}: {counted} bytes counted, {sent} sent in {objects} objects")


def test_no_private_tensor_and_no_moment_is_on_the_wire(deployed: Deployed) -> None:
    names = " ".join(deployed.private)
    for part in ("running_mean", "exp_avg", "exp_avg_sq", "norm", "evaluated-", "round-0002"):
        assert part in names
    for site in deployed.config.site_names:
        assert any(name.startswith(site) for name in deployed.private)
    wanted = pieces_as(deployed.private.values(), FLOATS) + truncated(deployed.private.values())
    assert len(wanted) > 50_000
    assert deployed.found(wanted) == []


def truncated(arrays: Iterable[NDArray[np.floating]]) -> list[bytes]:
    """Return the pieces of float32 arrays as bfloat16, which is their upper half."""
    halves = [np.ascontiguousarray(array).reshape(-1).view("<u2")[1::2] for array in arrays]
    return [piece for half in halves for piece in pieces(half)]


def private_pieces(deployed: Deployed) -> list[bytes]:
    return pieces_as(
        [array for name, array in deployed.private.items() if "running_" in name], [np.float32]
    )


def test_the_search_finds_what_is_planted_in_one_request(deployed: Deployed) -> None:
    """At random places, also of an image and of a name."""
    generator = np.random.default_rng(0)
    images = np.asarray(open_site(deployed.config, "south").images)
    planted = [
        private_pieces(deployed)[5],
        pieces(images)[40],
        words_of(deployed.config)[3].encode(),
    ]
    for piece in planted:
        large = [name for name, data in deployed.capture.objects().items() if len(data) > CHUNK]
        name = large[generator.integers(len(large))]
        content = deployed.capture.objects()[name]
        place = int(generator.integers(100, len(content) - len(piece)))
        changed = content[:place] + piece + content[place + len(piece) :]
        capture = deployed.capture.changed(name, changed)
        assert sum(piece in capture.up(site) for site in deployed.config.site_names) == 1
        if len(piece) == 16:
            wires = [Wire(capture.up(site)) for site in deployed.config.site_names]
            assert [found for wire in wires for found in wire.found([piece])] == [piece]


def test_the_search_finds_what_is_planted_across_two_requests(deployed: Deployed) -> None:
    objects = deployed.capture.objects()
    whole = next(data for data in objects.values() if data.startswith(b"Array ") and b"," in data)
    _, (first, second, *_), _ = get_object_head_values_from_object_content(whole)
    piece = private_pieces(deployed)[11]
    head = objects[second].index(b"\0") + 1
    capture = deployed.capture.changed(first, objects[first][:-7] + piece[:7])
    capture = capture.changed(
        second, objects[second][:head] + piece[7:] + objects[second][head + 9 :]
    )
    sites = [s for s in deployed.config.site_names if Wire(capture.up(s)).found([piece])]
    assert len(sites) == 1
    # No request holds it: it is found where the array is put together.
    assert not any(piece in one.sent for one in capture.of(sites[0]))


def test_no_image_label_or_prediction_is_on_the_wire(deployed: Deployed) -> None:
    config = deployed.config
    for site in config.site_names:
        data = open_site(config, site)
        images = np.asarray(data.images)
        wanted = pieces(images) + pieces_as([images], FLOATS) + pieces_as([images / 255], FLOATS)
        files = list((Path(config.data) / site).rglob("*.png"))
        assert len(files) == len(data)
        for path in files:
            wanted += pieces(np.frombuffer(path.read_bytes(), np.uint8))
        assert len(wanted) > 10_000
        assert deployed.found(wanted) == []
        table = (own_folder(deployed.run, site) / "predictions.csv").read_bytes()
        rows = [row for row in table.splitlines()[1:] if row]
        rows += (Path(config.data) / site / "metadata.csv").read_bytes().split()[1:]
        rows += [data.labels.astype(kind).tobytes() for kind in (np.int64, np.int32)]
        for subset in ("test", "validation"):
            said = read_predictions(own_folder(deployed.run, site) / "predictions.csv", subset)
            rows += [row.astype(k).tobytes() for row in said.probabilities for k in FLOATS[:2]]
        assert len(rows) > 2 * len(data)
        assert [row for wire in deployed.all() for row in rows if row in wire.content] == []


def test_no_patient_file_folder_or_machine_is_named(deployed: Deployed) -> None:
    config = deployed.config
    words = words_of(config)
    assert len(words) > 100
    places = [str(deployed.state(site)) for site in config.site_names]
    for wire in deployed.all():
        assert [word for word in words + places if word.encode() in wire.content] == []
    # The run's configuration comes from the coordinator, with the places on its own machine.
    own = [config.data, config.runs_dir, str(Path.home()) + "/"]
    # A name of two letters would be anywhere.
    own += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 6]
    for up, down in deployed.wires.values():
        assert [word for word in own if word.encode() in up.content] == []
        assert config.data.encode() in down.content


def break_image(config: Config, site: str) -> None:
    (Path(config.data) / site / "covid" / f"{ERIKA}.png").write_bytes(b"no image")
    metadata = Path(config.data) / site / "metadata.csv"
    metadata.write_text(metadata.read_text() + f"covid/{ERIKA}.png,covid,{ERIKA}\n")


def fail(config: Config, before: Callable[[str, str], None] | None = None) -> Capture:
    recorder = Recorder(before=before) if before else Recorder()
    with recorder.between(), pytest.raises(RunError):
        train_federated(config, Path(config.runs_dir), ProgressListener(), backend=DEPLOYMENT)
    return recorder.capture()


def assert_silent(config: Config, capture: Capture, site: str, sentence: str) -> None:
    """Assert that a site said why it failed, in words written in advance, and nothing else."""
    secrets = ["Erika", "Mustermann", ERIKA, *places(config, site), "no image", "Traceback"]
    said = [m.error.reason for m in capture.sent_by(site) if m.has_error()]
    assert said
    assert all(sentence in reason for reason in said)
    up, down = capture.up(site), capture.down(site)
    # The search can see an error: its sentence is there as it is.
    assert said[0].encode() in up
    assert [word for word in secrets if word.encode() in up] == []
    assert [word for word in secrets[:3] if word.encode() in down] == []
    # The hospital's own log does say what happened.
    reference = said[0].partition("reference ")[2][:8]
    assert f"reference {reference}" in (own_folder(run_of(config), site) / "log.txt").read_text()


def places(config: Config, site: str) -> list[str]:
    return [config.data, str(own_folder(run_of(config), site).parents[2]), str(Path.home()) + "/"]


def test_a_site_that_fails_when_it_joins_names_no_patient(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    break_image(config, "south")
    capture = fail(config)
    assert_silent(config, capture, "south", "not fit for training (code 103")
    assert ERIKA in (own_folder(run_of(config), "south") / "log.txt").read_text()


def test_sites_that_fail_in_mid_run_name_neither_patient_nor_file(tmp_path: Path) -> None:
    """Once their first rounds are over, one has a broken image, one a damaged private store."""
    config = tiny_config(tmp_path)
    replies = dict.fromkeys(config.site_names, 0)

    def damage(site: str, method: str) -> None:
        if method != "push-messages":
            return
        replies[site] += 1
        # The first reply was to the join request; the next order cannot be made before this one.
        if replies[site] == 2 and site == "south":
            break_image(config, site)
        if replies[site] == 2 and site == "north":
            (stored,) = (own_folder(run_of(config), site) / "store").glob("round-*.safetensors")
            stored.write_bytes(stored.read_bytes()[:-100])

    capture = fail(config, damage)
    assert_silent(config, capture, "south", "not fit for training (code 103")
    assert_silent(config, capture, "north", "the private store cannot be used")
    for site, word in (("south", ERIKA), ("north", "round-0001.safetensors")):
        assert word in (own_folder(run_of(config), site) / "log.txt").read_text()
        assert word.encode() not in capture.up(site)
    # A round had gone well before: the wire has its weights.
    assert any(m.has_content() and SHARED in m.content for m in capture.sent_by("north"))
