"""Which processes of a deployment are killed, and at which moments of a round."""

from dataclasses import dataclass

from clients.flower_host.prefork import CLIENT, STANDBY

SITE = "hospital-a"
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Process:
    """A process, by the program that it runs and whose it is."""

    name: str
    program: str
    role: str


@dataclass(frozen=True)
class FaultMoment:
    """A moment of the second round, as a call of a function: before it, or ``after`` it.

    ``call``: which call of it; the join request counts where the function serves it too.
    ``answering``: whether the site's ClientApp is there.
    """

    name: str
    role: str
    module: str
    function: str
    call: int
    after: bool = False
    answering: bool = True


PROCESSES = (
    Process("ServerApp", "flwr-serverapp", COORDINATOR),
    Process("SuperLink", "flower-superlink", COORDINATOR),
    Process("SuperExec", "flower-superexec", COORDINATOR),
    Process("SuperNode", "flower-supernode", SITE),
    Process("SuperNode's SuperExec", "flower-superexec", SITE),
    Process("what stands by for ClientApps", STANDBY, SITE),
    Process("ClientApp", CLIENT, SITE),
)
MOMENTS = (
    FaultMoment("before training", SITE, "clients.round", "train", 2),
    # The third of the second round's four steps.
    FaultMoment("mid-epoch", SITE, "common.learning.loop", "_joint_batch", 7),
    FaultMoment("after private write", SITE, "clients.store", "PrivateStore.save", 2, after=True),
    FaultMoment("before send", SITE, "clients.app", "release", 3, after=True),
    FaultMoment(
        "after send",
        *(SITE, "flwr.supernode.start_client_internal", "_push_messages", 3),
        after=True,
        answering=False,
    ),
    FaultMoment("mid-aggregation", COORDINATOR, "server.state", "aggregate", 2, answering=False),
    FaultMoment(
        "mid-checkpoint",
        COORDINATOR,
        "common.tensor_files",
        "save_file",
        2,
        after=True,
        answering=False,
    ),
)
