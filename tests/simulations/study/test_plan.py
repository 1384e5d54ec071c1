"""A study's file: what it may say, and what is said to somebody who got it wrong."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from simulations.study.plan import StudyPlan, plan_study, read_file

PLAIN = """
methods = ["joint", "sepnorm", "xsite"]
folds = [0, 2]
seeds = [0, 1]

[run]
epochs = 3
"""


STUDIES = sorted((Path(__file__).parents[3] / "configs").glob("study-*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_are_plans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSITE_DATA", "/data")
    file = read_file(path)
    plan = plan_study(file, str(path), file.run)
    assert len(plan.orders) == len(file.orders)
    of_a_fold = len(file.methods) + len(file.unseen) * len(plan.config.site_names)
    assert len(plan.cells()) == len(file.folds) * len(file.seeds) * of_a_fold


def plan_of(tmp_path: Path, text: str, **chosen: list[str]) -> StudyPlan:
    path = tmp_path / "my-study.toml"
    path.write_text(text)
    file = read_file(path)
    return plan_study(file, str(path), file.run, chosen.get("methods", []))


def test_every_method_meets_every_fold_and_seed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PLAIN)
    cells = plan.cells()
    assert len(cells) == len(set(cells)) == 3 * 2 * 2
    # What is compared is computed together: half a study is a comparison already.
    assert [cell.name for cell in cells[:4]] == [
        *("joint-fold0-seed0", "sepnorm-fold0-seed0", "xsite-fold0-seed0", "joint-fold2-seed0")
    ]
    assert plan.title == "my-study"
    assert plan.reference == "xsite"


def test_a_cell_s_configuration_is_the_study_s_and_the_method_s(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PLAIN)
    configs = {cell.name: plan.config_of(cell) for cell in plan.cells()}
    joint, xsite = configs["joint-fold2-seed1"], configs["xsite-fold2-seed1"]
    assert (joint.epochs, joint.fold, joint.seed) == (3, 2, 1)
    assert (joint.alpha, joint.normalisation) == (0.0, "shared")
    assert (xsite.alpha, xsite.normalisation) == (1.0, "dsbn")


def test_without_a_site_the_others_are_left(tmp_path: Path) -> None:
    text = PLAIN.replace("[run]", 'unseen = ["sepnorm"]\n[run]\nsites = "a,b,c"')
    plan = plan_of(tmp_path, text)
    left_out = [cell for cell in plan.cells() if cell.without]
    assert len(left_out) == 3 * 2 * 2
    names = {cell.without: plan.config_of(cell).site_names for cell in left_out}
    assert names == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}


def test_a_method_of_one_s_own(tmp_path: Path) -> None:
    text = PLAIN.replace('"xsite"]', '"mine"]') + (
        '\n[[method]]\nname = "mine"\nlabel = "Mine"\nmode = "federated"\n'
        "settings = { local-steps = 4 }\n"
    )
    plan = plan_of(tmp_path, text)
    mine = next(cell for cell in plan.cells() if cell.method.name == "mine")
    assert plan.config_of(mine).local_steps == 4
    assert mine.method.label == "Mine"


def test_written_down_it_reads_back_the_same(tmp_path: Path) -> None:
    text = PLAIN.replace(
        "[run]",
        'orders = ["joint < sepnorm", "sepnorm = xsite"]\nunseen = ["joint"]\n'
        'backend = "in-process"\n[run]',
    ).replace('"xsite"]', '"xsite", "mine"]') + (
        '\n[[method]]\nname = "mine"\nlabel = "Mine"\nmode = "pooled"\nsettings = { alpha = 0.5 }\n'
    )
    plan = plan_of(tmp_path, text)
    again = tmp_path / "again" / "my-study.toml"
    again.parent.mkdir()
    plan.write(again)
    file = read_file(again)
    assert plan_study(file, str(again), file.run) == plan
    assert plan.backend == "in-process"


def test_orders_and_a_reference_that_are_left_out_are_left_out(tmp_path: Path) -> None:
    text = PLAIN.replace(
        "[run]", 'reference = "xsite"\norders = ["joint < sepnorm", "sepnorm = xsite"]\n[run]'
    )
    plan = plan_of(tmp_path, text, methods=["joint", "sepnorm"])
    assert [(order.lower, order.upper, order.level) for order in plan.orders] == [
        ("joint", "sepnorm", False)
    ]
    assert plan.reference == "sepnorm"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"sepnorm"', '"sepnrom"'), "No method is called 'sepnrom'. Did you mean 'sepnorm'?"),
        (("folds = [0, 2]", "folds = [0, 4]"), "There is no fold 4: folds = 4 allows 0 to 3."),
        (("seeds = [0, 1]", "seeds = [-1]"), "A seed is 0 or more"),
        (("seeds = [0, 1]\n", ""), "names no seeds, so it is no study"),
        (("seeds = [0, 1]", "seeds = []"), "seeds: List should have at least 1 item"),
        (("epochs = 3", "epoch = 3"), "Unknown configuration key 'epoch'"),
        (("epochs = 3", "seed = 3"), "give seeds = […] above [run]"),
        (("[run]", "epochs = 3\n[run]"), "has no key 'epochs'"),
        (("[run]", 'orders = ["joint sepnorm"]\n[run]'), "not 'a < b' or 'a = b'"),
        (("[run]", 'orders = ["joint < sepnrom"]\n[run]'), "Did you mean 'sepnorm'?"),
        (("[run]", 'reference = "fedagv"\n[run]'), "Did you mean 'fedavg'?"),
        (("[run]", "unseen = ['joint']\n[run]\nsites = 'a'\ndata = ''"), "it needs two sites"),
        (
            ("epochs = 3", "epochs = 3\n[[method]]\nname = 'joint'\nlabel = 'x'\nmode = 'pooled'"),
            "'joint' is the name of a method of xsite",
        ),
        (
            ("epochs = 3", "epochs = 3\n[[method]]\nname = 'mine'\nlabel = 'x'\nmode = 'poled'"),
            "method.0.mode",
        ),
        (("epochs = 3", "epochs = "), "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, PLAIN.replace(*change))
    assert told in str(caught.value)


def test_a_method_that_contradicts_the_study_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    text = PLAIN.replace("epochs = 3", 'prototypes = "none"').replace('"xsite"]', '"mine"]') + (
        '\n[[method]]\nname = "mine"\nlabel = "Mine"\nmode = "federated"\n'
        'settings = { share = "prototypes", prototypes = "none" }\n'
    )
    with pytest.raises(ConfigError, match="method 'mine'"):
        plan_of(tmp_path, text)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("split = 'image'", "Method 'mine' sets split, but all methods of a study meet the same"),
        ("folds = 5", "Method 'mine' sets folds"),
        ("image-size = 56", "would meet images of 64 pixels where the others meet 128"),
    ],
)
def test_a_method_that_would_meet_other_images_is_refused(
    tmp_path: Path, settings: str, told: str
) -> None:
    own = (
        "\n[[method]]\nname = 'mine'\nlabel = 'Mine'\nmode = 'pooled'\n"
        f"settings = {{ {settings} }}\n"
    )
    text = PLAIN.replace('"xsite"]', '"xsite", "mine"]')
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text + own)
    assert told in str(caught.value)
    # The same images, seen smaller, are the same images.
    cached = text.replace("epochs = 3", "epochs = 3\ncache-size = 128")
    if "image-size" in settings:
        plan_of(tmp_path, cached + own)
