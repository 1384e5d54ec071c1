import torch
from torch import Tensor

from common.config.load import make_config
from common.methods.ms_net import transfer
from common.models.network import build_network
from common.models.sharing import private_names


def test_the_term_is_the_branches_cross_entropy_and_the_divergence_from_them() -> None:
    shared = torch.tensor([[1.0, -1.0], [0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    own = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1])
    p, q = own.detach().softmax(1), shared.detach().softmax(1)
    entropy = -(p[0, 0].log() + p[1, 1].log()) / 2
    divergence = (p * (p / q).log()).sum() / 2
    term = transfer(shared, own, labels)
    torch.testing.assert_close(term.detach(), entropy + divergence, rtol=1e-12, atol=0)
    term.backward()  # type: ignore[no-untyped-call]
    assert isinstance(shared.grad, Tensor) and isinstance(own.grad, Tensor)
    torch.testing.assert_close(shared.grad, (q - p) / 2, rtol=1e-10, atol=1e-12)
    # The branch learns from the labels alone.
    target = torch.nn.functional.one_hot(labels, 2)
    torch.testing.assert_close(own.grad, (p - target) / 2, rtol=1e-10, atol=1e-12)


def test_a_branch_is_its_site_s_own_and_predictions_are_the_shared_one_s() -> None:
    values = {"image-size": 32, "width": 0.05, "projection-hidden": 64}
    plain = build_network(make_config(values), ["a", "b"])
    network = build_network(make_config(values | {"auxiliary": True}), ["a", "b"])
    own = [name for name in network.state_dict() if name.startswith("auxiliary.")]
    assert own and set(own) <= set(private_names(network))
    alone = build_network(make_config(values | {"auxiliary": True}), ["b"])
    state, other = network.state_dict(), alone.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in own if ".sites.b." in name)
    assert any(
        not torch.equal(state[name], state[name.replace(".sites.a.", ".sites.b.")])
        for name in own
        if ".sites.a." in name
    )
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    output = network.eval()(x, [("a", 2), ("b", 1)])
    torch.testing.assert_close(output.logits, plain.eval()(x, [("a", 2), ("b", 1)]).logits)
    assert output.auxiliary is not None and output.auxiliary.shape == (3, 2)
    torch.testing.assert_close(output.auxiliary[2:], alone.eval()(x[2:], [("b", 1)]).auxiliary)
