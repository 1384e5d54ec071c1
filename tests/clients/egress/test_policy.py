"""A hospital's own file: read strictly, and it only ever takes away."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.egress.policy import (
    FIGURES,
    Policy,
    make_policy,
    may_leave,
    read_policy,
    reduced,
    reduced_info,
)
from common.errors import PolicyError
from common.exchange.messages import RoundReply, SiteReply
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout
from tests.common.exchange.test_wire import STATISTICS
from tests.server.answers import site_info

NOISY = "clip-update = 1.0\nupdate-noise = 2.0\n"


def policy(**values: Any) -> Policy:
    return make_policy({key.replace("_", "-"): value for key, value in values.items()}, "here")


def reply() -> RoundReply:
    return RoundReply(
        run="run",
        round=1,
        site="north",
        fingerprint="f" * 64,
        metrics={"test/auc": 0.9, "test/f1": 0.8, "train/loss": 0.5},
        images=30,
        layout=Layout(("w",), ((2,),), "float32", 2),
        shared=np.ones(2, np.float32),
        prototypes=Prototypes(
            "north",
            np.array([0, 1]),
            np.eye(2, 16, dtype=np.float32).reshape(2, 2, 8),
            np.array([9, 5]),
        ),
    )


def written(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert read_policy(written(tmp_path / "policy.toml", "")) == Policy()
    assert all(may_leave(Policy(), figure) for figure in FIGURES)
    assert {"test/specificity", "validation/specificity", "test/auc_low"} <= set(FIGURES)
    assert not may_leave(Policy(), "test/patients")


def test_every_key_is_read(tmp_path: Path) -> None:
    text = (
        'may-leave = ["weights"]\nfigures = ["test/auc", "train/*"]\nmin-prototype-images = 8\n'
        "largest-update = 2.5\nclip-update = 2.0\nprototype-noise = 0.1\ndelta = 1e-6\n"
        "approve-runs = true\n"
    )
    found = read_policy(written(tmp_path / "policy.toml", text))
    assert found == Policy(
        may_leave=["weights"],
        figures=["test/auc", "train/*"],
        min_prototype_images=8,
        largest_update=2.5,
        clip_update=2.0,
        prototype_noise=0.1,
        delta=1e-6,
        approve_runs=True,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min-prototype-image = 8", "has a key 'min-prototype-image'; there are may-leave,"),
        ('min-prototype-images = "8"', "min-prototype-images: Input should be a valid integer"),
        ("min-prototype-images = 0", "min-prototype-images: Input should be greater than"),
        ("prototype-noise = nan", "prototype-noise: Input should be a finite number"),
        ("largest-update = -1.0", "largest-update: Input should be greater than"),
        ("clip-update = inf", "clip-update: Input should be a finite number"),
        ("delta = 0.0", "delta: Input should be greater than 0"),
        ("delta = 0.01", "delta: Input should be less than or equal to 0.001"),
        ("update-noise = 1.0", "update-noise is measured by clip-update, which is 0"),
        (NOISY + "largest-update = 9.0", "largest-update would hold every round back"),
        ("largest-epsilon = 3.0", "no weights without noise: set clip-update and update-noise"),
        (
            NOISY + 'largest-epsilon = 3.0\nmay-leave = ["weights", "prototypes"]',
            "no prototypes without noise: set prototype-noise, or take",
        ),
        (
            NOISY + "largest-epsilon = 3.0\nprototype-noise = 2.0",
            "no figures, which leave exactly: take 'figures' out",
        ),
        (
            NOISY + 'largest-epsilon = 3.0\nmay-leave = ["weights", "figures"]',
            "no figures, which leave exactly: take 'figures' out",
        ),
        (
            'may-leave = ["images"]',
            "Input should be 'weights', 'prototypes', 'figures', 'statistics', 'moments' or",
        ),
        (
            NOISY + "largest-epsilon = 3.0\nprototype-noise = 2.0\nfigures = []",
            "no statistics, which leave exactly: take 'statistics' out",
        ),
        ("min-statistics-images = 0", "min-statistics-images: Input should be greater than"),
        ('figures = ["test/acu"]', "the figure 'test/acu', which no site sends"),
        ("approve-runs = 1", "approve-runs: Input should be a valid boolean"),
        ("a = ", "Cannot read the policy"),
        ("\0", "Cannot read the policy"),
    ],
)
def test_nonsense_is_refused_by_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read_policy(written(tmp_path / "policy.toml", text))


@pytest.mark.parametrize(
    "text",
    [
        NOISY + 'largest-epsilon = 3.0\nmay-leave = ["weights"]',
        NOISY + "largest-epsilon = 3.0\nprototype-noise = 2.0\nfigures = []\n"
        'may-leave = ["weights", "prototypes", "figures"]',
        'largest-epsilon = 3.0\nmay-leave = ["prototypes"]\nprototype-noise = 2.0',
        NOISY,
    ],
)
def test_a_cap_on_epsilon_is_taken_where_all_that_leaves_has_noise(
    tmp_path: Path, text: str
) -> None:
    found = read_policy(written(tmp_path / "policy.toml", text))
    assert found.largest_epsilon == (3.0 if "largest" in text else 0.0)


def test_a_policy_that_others_may_write_is_none(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="chmod go-w"):
        read_policy(written(tmp_path / "policy.toml", "", 0o664))
    with pytest.raises(PolicyError, match="No such file"):
        read_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="Is a directory"):
        read_policy(tmp_path)


def test_the_default_keeps_nothing_of_a_sound_reply() -> None:
    kept, _ = reduced(reply(), Policy())
    assert isinstance(kept, RoundReply) and kept.metrics == reply().metrics
    assert kept.prototypes.counts.tolist() == [9, 5]
    assert np.array_equal(kept.prototypes.vectors, reply().prototypes.vectors)


def test_figures_and_prototypes_are_left_out() -> None:
    kept, _ = reduced(reply(), policy(figures=["test/auc"], min_prototype_images=6))
    assert isinstance(kept, RoundReply) and dict(kept.metrics) == {"test/auc": 0.9}
    assert kept.prototypes.classes.tolist() == [0]
    bare, told = reduced(reply(), policy(may_leave=["weights"]))
    assert isinstance(bare, RoundReply) and not bare.metrics
    assert told == "the policy keeps here: 3 figures and 2 prototypes"
    assert reduced(reply(), Policy())[1] == ""
    assert bare.prototypes.vectors.shape == (0, 2, 8)
    figures = SiteReply("run", 1, "north", "f" * 64, {"test/auc": 0.9})
    assert reduced(figures, policy(may_leave=["weights"]))[0].metrics == {}


def test_statistics_leave_with_enough_images_of_every_class_that_there_is() -> None:
    def kept(*counts: int, **values: Any) -> str:
        info = site_info("north", class_counts=counts, statistics=replace(STATISTICS, images=9))
        left, reason = reduced_info(info, policy(**values))
        assert (left.statistics is None) == bool(reason)
        assert replace(left, statistics=info.statistics) == info
        return reason

    assert kept(10, 10) == ""
    # A class of which the site has none holds nothing back.
    assert kept(10, 0) == ""
    assert kept(3, 2, min_statistics_images=2) == ""
    assert kept(9, 30) == (
        "9 images of a class stand behind the statistics, fewer than min-statistics-images = 10"
    )
    assert kept(90, 90, may_leave=["weights"]) == "statistics may not leave (policy: may-leave)"


def test_what_has_no_statistics_is_left_as_it_is() -> None:
    info = site_info("north", class_counts=(1, 1))
    assert reduced_info(info, policy()) == (info, "")
