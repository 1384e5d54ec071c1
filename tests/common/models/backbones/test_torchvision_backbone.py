import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ConfigError
from common.models.backbones.torchvision_backbone import TorchvisionBackbone
from common.models.dsbn import DomainBatchNorm, convert
from common.models.per_site import SiteRouting
from simulations.explain.activation_maps import feature_layer

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
    backbone = TorchvisionBackbone(name, 3, 64)
    backbone.model.load_state_dict(
        {k: v for k, v in original.state_dict().items() if k in backbone.model.state_dict()}
    )
    routing = SiteRouting()
    convert(backbone, ("a", "b"), routing)
    backbone.eval()
    places = [n for n, m in backbone.named_modules() if isinstance(m, DomainBatchNorm)]
    assert place in places
    assert len(places) == sum(isinstance(m, _BatchNorm) for m in original.modules())
    head = last_linear(original)
    assert head.in_features == backbone.embedding
    for site_slices in ((("a", 5),), (("b", 2), ("a", 3))):
        routing.site_slices = site_slices
        with torch.no_grad():
            torch.testing.assert_close(head(backbone(x)), original(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "layer2.0"),
        ("densenet121", "features.transition1"),
        ("densenet121", "features.denseblock2"),
        ("vgg11_bn", "features.6"),
        ("efficientnet_b0", "features.3.0"),
        ("mobilenet_v3_small", "features.4"),
        ("regnet_y_400mf", "trunk_output.block2"),
        ("shufflenet_v2_x0_5", "stage3"),
        ("mnasnet0_5", "layers.9"),
        ("googlenet", "inception3b"),
        ("inception_v3", "Mixed_5d"),
    ],
)
def test_the_first_modules_give_the_mean_of_their_maps(name: str, last: str) -> None:
    more = {"aux_logits": False, "init_weights": False} if "ception" in name + last else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = torchvision.models.get_model(name, weights=None, num_classes=3, **more)
        backbone = TorchvisionBackbone(f"{name}:{last}", 3, 96)
        x = torch.randn(2, 3, 96, 96)
    kept = backbone.model.state_dict()
    # Nothing of what comes behind is carried along, nor sent anywhere.
    assert 0 < len(kept) < len(whole.state_dict())
    backbone.model.load_state_dict({place: whole.state_dict()[place] for place in kept})
    maps: list[Tensor] = []
    whole.get_submodule(last).register_forward_hook(lambda *call: maps.append(call[2].clone()))
    routing = SiteRouting()
    convert(backbone, ("a",), routing)
    routing.site_slices = (("a", 2),)
    whole.eval()
    backbone.eval()
    with torch.no_grad():
        whole(x)
        torch.testing.assert_close(backbone(x), maps[0].mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    assert maps[0].shape[:2] == (2, backbone.embedding)


def test_maps_are_drawn_from_the_last_of_the_first_modules() -> None:
    backbone = TorchvisionBackbone("resnet18:layer2.0", 2, 128).eval()
    chosen = feature_layer(backbone, torch.zeros(1, 3, 128, 128))
    assert chosen is backbone.model
    with torch.no_grad():
        assert chosen(torch.zeros(1, 3, 128, 128)).shape == (1, 128, 16, 16)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name: str) -> None:
    with torch.random.fork_rng():
        backbone = TorchvisionBackbone(name, 4, 80)
    assert not [n for n, _ in backbone.named_parameters() if "aux" in n.lower()]
    assert backbone.training
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, 80, 80)).shape == (2, backbone.embedding)


def test_trying_the_size_leaves_the_statistics() -> None:
    backbone = TorchvisionBackbone("resnet18", 2, 64)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
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
        ("resnet18:layer9", 64, "resnet18 cannot end at 'layer9'. Did you mean layer4"),
        ("resnet18:layer2.0.conv1", 64, "cannot end at 'layer2.0.conv1'. Did you mean layer2"),
        ("resnet18:", 64, "cannot end at ''. It can at conv1, bn1, relu, maxpool, layer1"),
        ("resnet18:fc", 64, "resnet18 cannot end at 'fc'. It can at conv1, bn1, relu, maxpool"),
        ("vgg11_bn:classifier.0", 64, "vgg11_bn cannot end at 'classifier.0'."),
        ("resnet18:conv1", 64, "'torchvision:resnet18:conv1' has no batch normalisation"),
    ],
)
def test_unfit_names_are_refused(name: str, size: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TorchvisionBackbone(name, 2, size)


def test_a_transformer_is_refused_without_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8, num_classes=2)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: tiny)
    with pytest.raises(ConfigError, match="'torchvision:vit_b_16' has no batch normalisation"):
        TorchvisionBackbone("vit_b_16", 2, 32)
