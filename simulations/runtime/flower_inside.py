"""What simulations use of Flower's inside: where a release of Flower moves it, it is mended here.

The version of Flower is pinned, and a test names what has moved. The import takes half a second.
"""

from flwr.cli.build import build_fab_from_disk as build_fab_from_disk
from flwr.common.serde import fab_to_proto as fab_to_proto
from flwr.common.serde import run_from_proto as run_from_proto
from flwr.common.serde import user_config_to_proto as user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest as ListRunsRequest
from flwr.proto.control_pb2 import RegisterNodeRequest as RegisterNodeRequest
from flwr.proto.control_pb2 import StartRunRequest as StartRunRequest
from flwr.proto.control_pb2 import StopRunRequest as StopRunRequest
from flwr.proto.control_pb2 import StreamLogsRequest as StreamLogsRequest
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME as FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.control import ControlHttpClient as ControlHttpClient
from flwr.supercore.fab import Fab as Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects as get_all_nested_objects,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents as inflate_object_from_contents,
)
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor as RuntimeVersionHttpInterceptor,
)
from flwr.supercore.logger import console_handler as console_handler
from flwr.supercore.run import Run as Run
from flwr.supercore.task_identity import TaskIdentity as TaskIdentity
from flwr.supercore.utils import simulation_config_from_json as simulation_config_from_json
