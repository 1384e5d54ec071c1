"""What simulations use of Flower's inside: where a release of Flower moves it, it is mended here.

The version of Flower is pinned, and a test names what has moved. The import takes half a second.
"""

from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
)
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.logger import console_handler
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.utils import simulation_config_from_json

__all__ = [
    "FLWR_IN_MEMORY_DB_NAME",
    "ControlHttpClient",
    "Fab",
    "ListRunsRequest",
    "RegisterNodeRequest",
    "Run",
    "RuntimeVersionHttpInterceptor",
    "StartRunRequest",
    "StopRunRequest",
    "StreamLogsRequest",
    "TaskIdentity",
    "build_fab_from_disk",
    "console_handler",
    "fab_to_proto",
    "get_all_nested_objects",
    "inflate_object_from_contents",
    "run_from_proto",
    "simulation_config_from_json",
    "user_config_to_proto",
]
