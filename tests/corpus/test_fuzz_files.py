"""Files of bytes: whatever happened to one, the house's own error tells, or a right value comes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.store import open_store
from common.config.schema import Config
from common.config.sections import ImageKeys
from common.data.cache import load_site
from common.data.decode import decode_file, dicom_patient, read_header
from common.data.folder import inspect_site, read_site
from common.errors import CheckpointError, RunError, SiteError, StoreError, XsiteError, is_plain
from common.files import write_json
from common.learning.loop import TrainSummary
from common.learning.optimiser import make_optimizer
from common.models.network import build_network
from common.models.released import read_checkpoint
from common.models.sharing import load_private, pack, private_state, unpack
from common.runs.predictions import PredictionsTable, read_predictions, write_predictions
from common.runs.result import read_result
from common.tensor_files import load_tensors, save_tensors
from server.checkpoints import load_checkpoint, save_checkpoint
from server.metrics import MetricsRow, read_rows, write_rows
from simulations.local_participant import load_unfinished, save_unfinished
from tests.clients.test_store import OWNER
from tests.clients.test_store import state as private
from tests.corpus.dicoms import WHOLE, colour, frames, run_length
from tests.corpus.fuzzing import JSON, one_spoilt, spoilt, tried
from tests.corpus.images import JPEG, PNG, TIFF
from tests.corpus.sites import TABLE, write_site
from tests.server.test_checkpoints import IMAGES, state

GREY = ImageKeys(cache_size=8)
RGB = ImageKeys(cache_size=8, channels=3)
FILES = {
    "png": PNG,
    "jpeg": JPEG,
    "tiff": TIFF,
    "dicom": WHOLE,
    "frames": frames(3),
    "colour": colour(),
    "run-length": run_length(),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", FILES)
def test_fuzz_an_image(kind: str, place: Path) -> None:
    @tried(60)
    @given(spoilt(FILES[kind]), st.sampled_from((GREY, RGB)))
    def holds(content: bytes, settings: ImageKeys) -> None:
        path = place / "scan"
        path.write_bytes(content)
        try:
            found = decode_file(path, settings)
            header = read_header(content, path)
        except SiteError as error:
            # Of a file that has become one of several frames, none is named.
            assert str(error).startswith(f"{path} ") and is_plain(str(error))
        else:
            assert found.shape == (8, 8, settings.channels) and found.dtype == np.uint8
            assert header.width * header.height > 0
        assert isinstance(dicom_patient(path), str | None)

    holds()


def test_fuzz_bytes_behind_a_signature(place: Path) -> None:
    path = place / "scan"

    @tried(60)
    @given(st.binary(max_size=200), st.sampled_from(sorted(FILES)))
    def holds(content: bytes, kind: str) -> None:
        path.write_bytes(FILES[kind][:140] + content)
        try:
            decode_file(path, GREY)
        except SiteError as error:
            assert str(error).startswith(f"{path} ")

    holds()


ROWS = st.lists(st.lists(st.text(max_size=12), max_size=4), max_size=6)


@pytest.fixture(scope="module")
def site(place: Path) -> Path:
    return write_site(place / "site", images=2, patients=2)


def test_fuzz_a_table_of_patients(site: Path) -> None:
    whole = (site / TABLE).read_bytes()

    @tried(80)
    @given(
        spoilt(whole)
        | ROWS.map(lambda rows: "\n".join(map(",".join, rows)).encode("utf-8", "replace"))
    )
    def holds(content: bytes) -> None:
        (site / TABLE).write_bytes(content)
        found, problems = inspect_site("a", site, ("non-covid", "covid"))
        assert len(found.files) == 4
        assert all(one.startswith("Site 'a': ") and "\n" not in one for one in problems)
        if not problems:
            assert read_site("a", site, ("non-covid", "covid")).patients == found.patients

    try:
        holds()
    finally:
        (site / TABLE).write_bytes(whole)


def test_fuzz_a_cache(site: Path, place: Path) -> None:
    """Whatever lies there, the images are those of the files."""
    folder = read_site("a", site, ("non-covid", "covid"))
    cache = place / "cache"
    right = np.array(load_site(folder, GREY, cache).images)
    hashes, (images,) = cache / "a.hashes.json", list(cache.glob("a-*/images.npy"))
    (manifest,) = cache.glob("a-*/manifest.json")
    # Values of the images can be flipped unseen: their header is what is read.
    start = images.stat().st_size - right.nbytes
    sound = {path: path.read_bytes() for path in (hashes, manifest, images)}

    @tried(60)
    @given(
        st.sampled_from((hashes, manifest)).flatmap(
            lambda path: st.tuples(st.just(path), spoilt(sound[path]) | JSON.map(as_json))
        )
        | st.tuples(
            st.just(images), spoilt(sound[images][:start]).map(lambda head: head + right.tobytes())
        )
    )
    def holds(change: tuple[Path, bytes]) -> None:
        path, content = change
        path.write_bytes(content)
        try:
            found = load_site(folder, GREY, cache)
        except RunError as error:
            pytest.fail(str(error))
        if path != images:
            assert np.array_equal(found.images, right)
        assert found.images.shape == right.shape

    holds()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def tensors(place: Path) -> bytes:
    save_tensors(
        place / "sound.safetensors",
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)},
        {"said": "yes"},
    )
    return (place / "sound.safetensors").read_bytes()


def test_fuzz_a_file_of_tensors(tensors: bytes, place: Path) -> None:
    path = place / "spoilt.safetensors"

    @tried(120)
    @given(spoilt(tensors))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found, about = load_tensors(path)
        except CheckpointError as error:
            assert "spoilt.safetensors" in str(error) and "\n" not in str(error)
        else:
            assert all(isinstance(one, torch.Tensor) for one in found.values())
            assert all(isinstance(key, str) for key in about)

    holds()


def test_fuzz_a_pytorch_file(place: Path) -> None:
    held, path = io.BytesIO(), place / "spoilt.pth"
    torch.save({"state_dict": {"a": torch.ones(3)}}, held)

    @tried(60)
    @given(spoilt(held.getvalue()))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert "spoilt.pth" in str(error)

    holds()


def test_fuzz_a_coordinator_s_checkpoint(place: Path) -> None:
    folder = place / "checkpoint"
    save_checkpoint(folder, state(2), "digest")
    (path,) = folder.iterdir()
    whole = path.read_bytes()

    @tried(80)
    @given(spoilt(whole))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = load_checkpoint(folder, IMAGES, "digest")
        except CheckpointError as error:
            assert "round-0002.safetensors" in str(error) or "training images" in str(error)
        else:
            assert found is not None and found.round == 2 and np.isfinite(found.shared).all()

    holds()


def test_fuzz_a_private_store(place: Path) -> None:
    store = open_store(place / "store", OWNER)
    store.save(1, private(1), previous=0)
    files = {path: path.read_bytes() for path in sorted(store.folder.iterdir())}

    @tried(80)
    @given(one_spoilt(files))
    def holds(change: tuple[Path, bytes]) -> None:
        for path, content in files.items():
            path.write_bytes(content)
        change[0].write_bytes(change[1])
        try:
            found = open_store(store.folder, OWNER).load(1)
        except StoreError as error:
            assert str(store.folder) in str(error)
        else:
            assert all(isinstance(one, torch.Tensor) for one in found.private.values())

    holds()


METRICS = st.builds(
    MetricsRow,
    round=st.integers(0, 99),
    step=st.integers(0, 999),
    site=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True),
    subset=st.sampled_from(("test", "validation")),
    figures=st.fixed_dictionaries({"accuracy": st.floats()}),
    seconds=st.floats(),
    bytes_up=st.integers(0, 2**60),
)


def test_fuzz_figures_come_back_or_are_told(place: Path) -> None:
    path = place / "metrics.csv"

    @tried(60)
    @given(st.lists(METRICS, max_size=4), st.data())
    def holds(rows: list[MetricsRow], data: st.DataObject) -> None:
        write_rows(path, rows)
        assert repr(read_rows(path)) == repr(rows)
        path.write_bytes(data.draw(spoilt(path.read_bytes())))
        try:
            read_rows(path)
        except CheckpointError as error:
            assert "metrics.csv" in str(error)

    holds()


def test_fuzz_predictions_come_back_or_are_told(place: Path) -> None:
    path = place / "predictions.csv"

    @tried(60)
    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1),
                st.floats(0, 1),
            ),
            max_size=5,
        ),
        st.data(),
    )
    def holds(rows: list[tuple[str, float]], data: st.DataObject) -> None:
        path.unlink(missing_ok=True)
        files, values = [file for file, _ in rows], [[1 - p, p] for _, p in rows]
        labels = np.arange(len(rows)) % 2
        write_predictions(
            path, {"test": PredictionsTable(files, labels, np.array(values), ("no", "yes"))}
        )
        found = read_predictions(path, "test")
        assert found.files == tuple(files) and found.labels.tolist() == labels.tolist()
        assert found.probabilities.tolist() == values
        path.write_bytes(data.draw(spoilt(path.read_bytes())))
        try:
            read_predictions(path, "test")
        except CheckpointError as error:
            assert "predictions.csv" in str(error)
        # It is written over whatever lies there.
        write_predictions(
            path,
            {
                "validation": PredictionsTable(
                    ["a.png"], np.array([1]), np.array([[0, 1.0]]), ("no", "yes")
                )
            },
        )
        assert read_predictions(path, "validation").files == ("a.png",)

    holds()


def test_fuzz_a_result_comes_back_or_is_told(place: Path) -> None:
    @tried(100)
    @given(
        st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=9),
            st.integers() | st.text(st.characters(codec="utf-8")),
        ),
        st.data(),
    )
    def holds(told: dict[str, object], data: st.DataObject) -> None:
        write_json(place / "result.json", told)
        assert read_result(place) == told
        path = place / "result.json"
        path.write_bytes(data.draw(spoilt(path.read_bytes()) | JSON.map(as_json)))
        try:
            assert isinstance(read_result(place), dict)
        except XsiteError as error:
            assert "result.json" in str(error)

    holds()


def test_fuzz_an_unfinished_round(place: Path) -> None:
    config = Config(image_size=32, width=0.05, projection_hidden=16, projection_size=4)
    network = build_network(config, ["a", "b"])
    optimizer = make_optimizer(network, config)
    shared, own = pack(network), private_state(network)
    store = open_store(place / "unfinished", OWNER)
    done = TrainSummary(2, 16, 1.5, 0.5, 0.25, 0.25, True, 6)
    save_unfinished(store, 2, network, optimizer, done)
    path = place / "unfinished" / "round-0002.safetensors"
    whole = path.read_bytes()
    assert load_unfinished(store, 2, range(4, 8), network, optimizer) == done

    @tried(60)
    @given(spoilt(whole))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        unpack(network, shared)
        load_private(network, own)
        found = load_unfinished(store, 2, range(4, 8), network, optimizer)
        assert np.isfinite(pack(network)).all()
        if found.steps:
            assert 4 <= found.next_step < 8
            return
        assert found.next_step == 4
        assert np.array_equal(pack(network), shared)
        assert all(torch.equal(own[n], t) for n, t in private_state(network).items())

    holds()
