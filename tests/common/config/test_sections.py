import hashlib
import json

import pytest

from common.config.schema import Config, about_keys, keys_of
from common.config.sections import Role

# What the digest of a run leaves out, and beside these the key of a study's cell.
ELSEWHERE = {"run-name", "runs-dir", "cache-dir", "resume", "join-timeout", "round-timeout"}
OF_THE_CELL = {"data", "sites", "fold", "seed"}


def test_the_sections_follow_each_other_in_the_order_of_a_configuration() -> None:
    keys = list(Config().to_run_config())
    firsts = ["data", "image-size", "backbone", "alpha", "proximal", "epochs", "local-steps"]
    places = [keys.index(key) for key in (*firsts, "run-name")]
    assert places[0] == 0
    assert places == sorted(places)
    assert keys[-1] == "resume"


@pytest.mark.parametrize(
    ("roles", "keys"),
    [
        ([Role.PLACE, Role.WAITING], ELSEWHERE),
        ([Role.FOLDERS, Role.CELL], OF_THE_CELL),
        ([Role.MACHINE], {"threads", "device"}),
        (
            [Role.FOLDERS, Role.IMAGES],
            {"data", "sites", "classes", "task", "split", "folds", "synthetic-patients", "channels"}
            | {
                "window-center",
                "window-width",
                "grey-low",
                "grey-high",
                "classes-map",
                "train-images",
            },
        ),
    ],
)
def test_a_key_says_what_kind_of_key_it_is(roles: list[Role], keys: set[str]) -> None:
    assert set(keys_of(*roles)) == keys


def test_a_key_that_says_nothing_decides_the_result() -> None:
    assert about_keys()["learning-rate"].role is Role.RESULT
    assert about_keys()["pretrained"].path
    assert [key for key, about in about_keys().items() if about.study] == [
        *("fold", "seed", "run-name", "runs-dir", "resume")
    ]


def test_the_digest_is_over_what_decides_the_result() -> None:
    config = Config(epochs=3, sites="a=/x,b", run_name="one", data="/d")
    values = {k: v for k, v in config.to_run_config().items() if k not in ELSEWHERE}
    text = json.dumps(values, sort_keys=True)
    assert config.digest() == hashlib.sha256(text.encode()).hexdigest()
