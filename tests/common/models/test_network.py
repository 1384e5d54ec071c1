import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.config.load import make_config
from common.config.schema import Config
from common.errors import CheckpointError, ConfigError, RunError
from common.models import sharing
from common.models.dsbn import DomainBatchNorm
from common.models.network import build_network, projection_width
from common.models.released import released_entries
from common.tasks.task import task_layout
from common.tensor_files import save_tensors


def small(**more: object) -> Config:
    values = {"width": 0.125, "image-size": 64, "projection-size": 16}
    return make_config(values | {key.replace("_", "-"): value for key, value in more.items()})


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "backbone", ["covidnet", "covidnet-original", "torchvision:mobilenet_v3_small"]
)
def test_outputs_have_their_shapes_and_reach_every_part(backbone: str) -> None:
    width = 1.0 if backbone.startswith("torchvision") else 0.125
    network = build_network(
        small(backbone=backbone, width=width, classes="none,mild,severe"), ["a", "b"]
    )
    output = network(images(), [("a", 2), ("b", 2)])
    assert output.logits.shape == (4, 3)
    assert output.embedding.shape[0] == 4
    assert output.projection.shape == (4, 16)
    assert output.projection.ge(0).all(), "the projection ends in a ReLU"
    output.logits.square().sum().backward()
    assert all(p.grad is None for p in network.projection.parameters())
    assert all(p.grad is not None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


def test_the_projection_head_sees_the_embedding_and_the_body_its_gradient() -> None:
    network = build_network(small(), ["a"])
    network(images(), [("a", 4)]).projection.sum().backward()
    assert all(p.grad is not None for p in network.projection.parameters())
    assert all(p.grad is not None for p in network.backbone.parameters())
    assert all(p.grad is None for p in network.head.parameters())


@pytest.mark.parametrize(
    "backbone", ["covidnet", "covidnet-original", "torchvision:mobilenet_v3_small"]
)
def test_without_a_projection_head_projections_are_embeddings(backbone: str) -> None:
    width = 1.0 if backbone.startswith("torchvision") else 0.125
    config = small(backbone=backbone, width=width)
    bare = config.changed(contrastive_on="embedding")
    network, without = build_network(config, ["a"]), build_network(bare, ["a"]).eval()
    output = without(images(), [("a", 4)])
    assert torch.equal(output.projection, output.embedding)
    assert torch.equal(without.project(output.embedding, [("a", 4)]), output.embedding)
    assert projection_width(config) == 16
    assert projection_width(bare) == output.embedding.shape[1] == without.backbone.embedding
    # All else is the same, and nothing of a head is shared.
    state = network.state_dict()
    assert list(without.state_dict()) == [n for n in state if not n.startswith("projection.")]
    assert all(torch.equal(tensor, state[name]) for name, tensor in without.state_dict().items())


def test_shared_weights_do_not_depend_on_the_sites() -> None:
    one, two = build_network(small(), ["a"]), build_network(small(), ["b", "c", "a"])
    assert sharing.shared_layout(one) == sharing.shared_layout(two)
    assert (sharing.pack(one) == sharing.pack(two)).all()
    alike = build_network(small(), ["a"])
    assert all(torch.equal(t, alike.state_dict()[n]) for n, t in one.state_dict().items())
    other = build_network(small(seed=1), ["a"])
    assert (sharing.pack(one) != sharing.pack(other)).mean() > 0.99


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"precision": "float64"},
        {"backbone": "covidnet-original"},
        {"backbone": "torchvision:mobilenet_v3_small", "width": 1.0},
        {"adapters": "parallel"},
        {"auxiliary": True},
        {"normalisation": "shared"},
        {"share": "prototypes"},
    ],
)
def test_the_layout_is_known_without_the_weights(values: dict[str, object]) -> None:
    config = small(**values)
    found = task_layout(config, "a")
    assert found == sharing.shared_layout(build_network(config, ["a"]))
    assert found == sharing.shared_layout(build_network(config, ["b", "c"]))


def test_building_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    build_network(small(), ["a"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_precision_and_memory_format() -> None:
    network = build_network(small(), ["a"])
    assert network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    stem = network.backbone.stem
    assert isinstance(stem, nn.Conv2d)
    assert stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in build_network(small(precision="float64"), ["a"]).parameters()} == {
        torch.float64
    }


def test_the_released_variant_ends_in_a_sigmoid_and_the_corrected_does_not() -> None:
    x = 100 * images()
    released = build_network(small(variant="released"), ["a"])(x, [("a", 4)]).logits
    assert released.min() > 0
    assert released.max() < 1
    corrected = build_network(small(), ["a"])(x, [("a", 4)]).logits
    assert corrected.min() < 0


def test_one_normalisation_for_all_is_plain_and_has_no_counter() -> None:
    network = build_network(small(normalisation="shared"), ["a", "b"])
    kinds = [type(m) for m in network.modules()]
    assert DomainBatchNorm not in kinds
    assert kinds.count(nn.BatchNorm2d) + kinds.count(nn.BatchNorm1d) == 9
    assert not [n for n in network.state_dict() if n.endswith("num_batches_tracked")]
    assert sharing.private_names(network) == ()
    x = images()
    both = network(x, [("a", 2), ("b", 2)]).logits
    alike = build_network(small(normalisation="shared"), ["z"])(x, [("z", 4)]).logits
    assert torch.equal(both, alike)


def test_the_original_has_normalisation_in_its_projection_head_alone() -> None:
    network = build_network(small(backbone="covidnet-original"), ["a"])
    places = [n for n, m in network.named_modules() if isinstance(m, DomainBatchNorm)]
    assert places == ["projection.1.hidden_norm", "projection.1.output_norm"]


@pytest.mark.parametrize("normalisation", ["dsbn", "shared"])
@pytest.mark.parametrize(
    ("site_slices", "sentence"),
    [
        ((("a", 3),), "holds 4 images"),
        ((("a", 3), ("b", 2)), "holds 4 images"),
        ((("a", 4), ("b", 0)), "every segment needs an image"),
        ((("a", 1), ("z", 3)), "nothing of site 'z'; it knows a, b"),
        ((), "holds 4 images"),
    ],
)
def test_segments_that_do_not_fit_are_refused_for_any_normalisation(
    normalisation: str, site_slices: tuple[tuple[str, int], ...], sentence: str
) -> None:
    network = build_network(small(normalisation=normalisation), ["a", "b"])
    with pytest.raises(RunError, match=sentence):
        network(images(), site_slices)


def test_a_site_can_be_added_like_another_with_tensors_of_its_own() -> None:
    network = build_network(small(), ["a"]).eval()
    network.add_site("new", like="a")
    assert network.sites == ("a", "new")
    old, new = network(images(), [("a", 4)]), network(images(), [("new", 4)])
    assert torch.equal(old.logits, new.logits)
    network.state_dict()["head.norm1.sites.new.weight"].fill_(6.0)
    assert network.state_dict()["head.norm1.sites.a.weight"].eq(1).all()
    with pytest.raises(RunError, match="'new' already"):
        network.add_site("new", like="a")


def test_the_description_says_what_it_is() -> None:
    assert re.fullmatch(
        r"covidnet \(corrected\), width 0\.125, 2 classes, 0\.\d million weights",
        build_network(small(), ["a", "b"]).description,
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"backbone": "resnet18"}, "torchvision classifier as 'torchvision:resnet18'"),
        ({"backbone": "torchvision:resnet18"}, "width = 0.125 is for COVID-Net"),
        ({"image_size": 30}, "COVID-Net needs at least 31"),
        ({"image_size": 30, "backbone": "covidnet-original"}, "at least 31"),
    ],
)
def test_unfit_configurations_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_network(small(**values), ["a"])


def released_file(path: Path) -> Path:
    """A checkpoint with the authors' names; normalisation weights 2 at ucsd and 3 at new."""
    state = build_network(small(), ["x"]).state_dict()
    tensors = {}
    for entry in released_entries():
        site = "" if entry.source is None else ".sites.x"
        value = {None: 0.5, "ucsd": 2.0, "new": 3.0}[entry.source]
        tensors[entry.name] = torch.full_like(state[f"{entry.module}{site}.{entry.tensor}"], value)
    torch.save({"state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("site", ["first", "second", "third"])
def test_every_hospital_starts_from_the_same_half_of_the_released_network(
    tmp_path: Path, site: str
) -> None:
    path = released_file(tmp_path / "released.pth")
    config = small(pretrained=str(path), sites="first,second,third")
    alone = build_network(config, [site]).state_dict()
    pooled = build_network(config, ["third", "second", "first"]).state_dict()
    name = f"head.norm1.sites.{site}.weight"
    assert alone[name].eq(3.0 if site == "second" else 2.0).all()
    assert all(torch.equal(tensor, pooled[key]) for key, tensor in alone.items())
    shared = build_network(config.changed(normalisation="shared"), [site]).state_dict()
    assert shared["head.norm1.weight"].eq(2.0).all()


def test_weights_that_xsite_wrote_can_be_started_from(tmp_path: Path) -> None:
    trained = build_network(small(seed=5), ["a"])
    state, names = trained.state_dict(), sharing.shared_names(trained)
    path = tmp_path / "shared.safetensors"
    save_tensors(path, {name: state[name] for name in names})
    network = build_network(small(pretrained=str(path)), ["b"])
    assert (sharing.pack(network) == sharing.pack(trained)).all()
    with pytest.raises(CheckpointError, match=r"misshapen: projection\.output\.weight"):
        build_network(small(pretrained=str(path), projection_size=8), ["b"])
    with pytest.raises(CheckpointError, match="There is no file"):
        build_network(small(pretrained=str(tmp_path / "none.pth")), ["b"])
