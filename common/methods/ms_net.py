"""MS-Net: a branch of every site's own teaches the shared one (:mod:`common.models.ms_net`)."""

from collections.abc import Sequence

from torch import Tensor

from common.config.schema import Config
from common.learning.objective import Batch, Term
from common.methods.method import PLAIN, Local, Method, Variant
from common.models.ms_net import transfer


class MSNet(Method):
    """Let each site's own branch learn, and hand on what it knows."""

    name = "ms-net"
    key = "auxiliary"
    variants = (Variant("ms-net", "MS-Net", "pooled", PLAIN | {"auxiliary": True}),)

    def terms(self, local: Local) -> Sequence[Term]:
        """Return what the branches learn, and what they hand on."""

        def value(batch: Batch) -> Tensor:
            shared, own = batch.output.logits, batch.output.auxiliary
            assert own is not None
            return transfer(shared, own, batch.labels)

        return [Term.constant(self.name, value)]

    def describe(self, config: Config) -> Sequence[str]:
        """Say what it adds."""
        return ["the sites' own branches and what they hand on (MS-Net)"]

    def private_parts(self, config: Config) -> Sequence[str]:
        """Name the branch."""
        return ["a branch of each site's own"]
