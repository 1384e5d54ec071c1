"""A hospital's own file: read strictly, and it only ever takes away."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.policy import FIGURES, Policy, kept_back, make_policy, may_leave, read_policy, reduced
from common.errors import PolicyError
from common.messages import RoundReply, SiteReply
from common.prototypes import Prototypes
from common.sharing import Layout


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
            "north", np.array([0, 1]), np.eye(2, 8, dtype=np.float32), np.array([9, 5])
        ),
    )


def written(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert read_policy(written(tmp_path / "policy.toml", "")) == Policy()
    assert all(may_leave(Policy(), figure) for figure in FIGURES)
    assert not may_leave(Policy(), "test/patients")


def test_every_key_is_read(tmp_path: Path) -> None:
    text = (
        'may-leave = ["weights"]\nfigures = ["test/auc", "train/*"]\nmin-prototype-images = 8\n'
        "largest-update = 2.5\nprototype-noise = 0.1\napprove-runs = true\n"
    )
    found = read_policy(written(tmp_path / "policy.toml", text))
    assert found == Policy(
        may_leave=["weights"],
        figures=["test/auc", "train/*"],
        min_prototype_images=8,
        largest_update=2.5,
        prototype_noise=0.1,
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
        ('may-leave = ["images"]', "may-leave: Input should be 'weights', 'prototypes' or"),
        ('figures = ["test/acu"]', "the figure 'test/acu', which no site sends"),
        ("approve-runs = 1", "approve-runs: Input should be a valid boolean"),
        ("a = ", "Cannot read the policy"),
        ("\0", "Cannot read the policy"),
    ],
)
def test_nonsense_is_refused_by_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read_policy(written(tmp_path / "policy.toml", text))


def test_a_policy_that_others_may_write_is_none(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="chmod go-w"):
        read_policy(written(tmp_path / "policy.toml", "", 0o664))
    with pytest.raises(PolicyError, match="No such file"):
        read_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="Is a directory"):
        read_policy(tmp_path)


def test_the_default_keeps_nothing_of_a_sound_reply() -> None:
    kept = reduced(reply(), Policy())
    assert isinstance(kept, RoundReply) and kept.metrics == reply().metrics
    assert kept.prototypes.counts.tolist() == [9, 5]
    assert np.array_equal(kept.prototypes.vectors, reply().prototypes.vectors)


def test_figures_and_prototypes_are_left_out() -> None:
    kept = reduced(reply(), policy(figures=["test/auc"], min_prototype_images=6))
    assert isinstance(kept, RoundReply) and dict(kept.metrics) == {"test/auc": 0.9}
    assert kept.prototypes.classes.tolist() == [0]
    bare = reduced(reply(), policy(may_leave=["weights"]))
    assert isinstance(bare, RoundReply) and not bare.metrics
    told = kept_back(reply(), policy(may_leave=["weights"]))
    assert told == "the policy keeps here: 3 figures and 2 prototypes"
    assert kept_back(reply(), Policy()) == ""
    assert bare.prototypes.vectors.shape == (0, 8)
    figures = SiteReply("run", 1, "north", "f" * 64, {"test/auc": 0.9})
    assert reduced(figures, policy(may_leave=["weights"])).metrics == {}


def test_noise_is_as_large_as_the_policy_says_and_never_the_same() -> None:
    size, many = 4096, 200
    vectors = np.zeros((many, size), np.float32)
    vectors[:, 0] = 1
    held = Prototypes("north", np.arange(many), vectors, np.full(many, 9))
    one, other = (
        reduced(
            RoundReply(**{**vars(reply()), "prototypes": held}), policy(prototype_noise=0.005)
        ).prototypes.vectors  # type: ignore[union-attr]
        for _ in range(2)
    )
    assert not np.array_equal(one, other)
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    # The first value is 1 / √(1 + 4095 · 0.005²) ≈ 0.9525 of length 1; the others are noise.
    assert one[:, 0].mean() == pytest.approx((1 + (size - 1) * 0.005**2) ** -0.5, rel=1e-3)
    assert (one[:, 1:] / one[:, :1]).std() == pytest.approx(0.005, rel=0.02)
