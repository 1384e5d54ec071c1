"""What is learnt of an image: a task says its targets, heads, loss, decision and figures.

Everything else (the cache, batches, the loop, rounds, predictions) carries targets and outputs by
name and asks the task that ``task`` names. A further task is a class as of :class:`Task` and its
line in :data:`TASKS`; and an entry in :data:`common.tasks.figures.FIGURES` for each of its figures
that shall leave a site.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config.schema import Config
from common.data.folder import SiteFolder
from common.errors import refuse_unknown
from common.models.network import Network, build_network
from common.models.sharing import Layout, shared_layout
from common.tasks.classification import Classification


class Task(Protocol):
    """What is learnt; names of targets and of heads are the same.

    Every task has the target ``"class"``: folds are stratified by it, and prototypes are made of
    it. Further ones have any shape an image, several labels or a mask, and mark what is unknown by
    a value of their own, which their loss and their figures leave out.
    """

    def targets(self, folder: SiteFolder) -> Mapping[str, NDArray[Any]]:
        """Return each target, shape (files, …), in the order of the folder's files."""
        ...

    def heads(self, embedding: int) -> Mapping[str, nn.Module]:
        """Return each target's head, embedding (batch, ``embedding``) → (batch, …)."""
        ...

    def loss(self, output: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch, shape (), in float32 at least."""
        ...

    def decide(self, output: Mapping[str, Tensor]) -> Mapping[str, NDArray[Any]]:
        """Return what is made of the outputs for n images, each (n,) or (n, values).

        It is what ``predictions.csv`` holds. Under ``"class"``: probabilities, (n, classes).
        """
        ...

    def figures(
        self, decided: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, float]:
        """Return figures by name, NaN where one is undefined, and ``images``, their number."""
        ...


TASKS: dict[str, Callable[[Config], Task]] = {"classification": Classification}
"""Every task by its name, the value of the key ``task``."""


def task_of(config: Config) -> Task:
    """Return a configuration's task.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    refuse_unknown("task", config.task, TASKS)
    return TASKS[config.task](config)


def task_network(config: Config, sites: Sequence[str]) -> Network:
    """Return :func:`common.models.network.build_network` with the heads of the task."""
    return build_network(config, sites, task_of(config).heads)


# Every message of a site asks for it, and equal configurations have equal layouts.
@functools.lru_cache(maxsize=8)
def task_layout(config: Config, site: str) -> Layout:
    """Return the layout of the shared tensors of a configuration's network, without its weights.

    Any site will do: the layout is the same at all of them. What the network starts from is not
    read.
    """
    # On the device "meta" there are shapes and no values: a quarter of a second instead of two.
    with torch.device("meta"):
        return shared_layout(task_network(config.changed(pretrained=""), [site]))
