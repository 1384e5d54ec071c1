import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError
from common.models.dsbn import DomainBatchNorm, convert
from common.models.own import SiteRouting
from common.models.torchvision_body import TorchvisionBody

# Names that look for 'bn' would miss: resnet's downsample.1, densenet's norm0, mobilenet's 0.1.
CONVERTED = {
    "resnet18": "model.layer2.0.downsample.1",
    "densenet121": "model.features.norm0",
    "mobilenet_v3_small": "model.features.0.1",
}


def last_linear(model: nn.Module) -> nn.Linear:
    return [m for m in model.modules() if isinstance(m, nn.Linear)][-1]


@pytest.mark.parametrize(("name", "place"), CONVERTED.items())
def test_a_converted_network_equals_the_original(name: str, place: str) -> None:
    torch.manual_seed(0)
    original = torchvision.models.get_model(name, weights=None, num_classes=3)
    x = torch.randn(5, 3, 64, 64)
    original(x)  # moves the running statistics away from 0 and 1
    original.eval()
    body = TorchvisionBody(name, 3, 64)
    body.model.load_state_dict(
        {k: v for k, v in original.state_dict().items() if k in body.model.state_dict()}
    )
    routing = SiteRouting()
    convert(body, ("a", "b"), routing)
    body.eval()
    places = [n for n, m in body.named_modules() if isinstance(m, DomainBatchNorm)]
    assert place in places
    assert len(places) == sum(isinstance(m, _BatchNorm) for m in original.modules())
    head = last_linear(original)
    assert head.in_features == body.embedding
    for segments in ((("a", 5),), (("b", 2), ("a", 3))):
        routing.segments = segments
        with torch.no_grad():
            torch.testing.assert_close(head(body(x)), original(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name: str) -> None:
    with torch.random.fork_rng():
        body = TorchvisionBody(name, 4, 80)
    assert not [n for n, _ in body.named_parameters() if "aux" in n.lower()]
    assert body.training
    with torch.no_grad():
        assert body(torch.zeros(2, 3, 80, 80)).shape == (2, body.embedding)


def test_trying_the_size_leaves_the_statistics() -> None:
    body = TorchvisionBody("resnet18", 2, 64)
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(int(m.num_batches_tracked or 0) == 0 for m in norms)
    assert all(m.running_mean is not None and m.running_mean.eq(0).all() for m in norms)


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("vgg11", 32, "'torchvision:vgg11' has no batch normalisation"),
        ("squeezenet1_1", 64, "has no batch normalisation"),
        ("resnet81", 64, "no classifier called 'resnet81'. Did you mean resnet"),
        ("zzz", 64, "no classifier called 'zzz'. resnet18 is one."),
        ("fasterrcnn_resnet50_fpn", 64, "no classifier called 'fasterrcnn_resnet50_fpn'"),
        ("densenet121", 16, "cannot take images of 16 pixels"),
    ],
)
def test_unfit_names_are_refused(name: str, size: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TorchvisionBody(name, 2, size)


def test_a_transformer_is_refused_without_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8, num_classes=2)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: tiny)
    with pytest.raises(ConfigError, match="'torchvision:vit_b_16' has no batch normalisation"):
        TorchvisionBody("vit_b_16", 2, 32)
