"""What simulations use of Flower's inside: where a release of Flower moves it, this says what."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from simulations.runtime import flower_inside, superlink

SIMULATIONS = Path(__file__).parents[3] / "simulations"
PUBLIC = {"app", "clientapp", "serverapp"}
"""The packages of Flower that its documentation describes, and no release moves."""


def imports_of_flower(file: Path) -> list[tuple[str, str]]:
    nodes = ast.walk(ast.parse(file.read_text()))
    named = [
        (node.module or "", alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return [(module, name) for module, name in named if module.split(".")[0] == "flwr"]


@pytest.mark.parametrize(("module", "name"), imports_of_flower(Path(flower_inside.__file__)))
def test_what_is_used_is_where_it_was(module: str, name: str) -> None:
    assert hasattr(import_module(module), name), f"Flower has moved {module}.{name}"


def test_no_other_file_reaches_into_flower() -> None:
    for file in sorted(SIMULATIONS.rglob("*.py")):
        inside = {m for m, _ in imports_of_flower(file) if m.split(".")[1] not in PUBLIC}
        assert bool(inside) == (file == Path(flower_inside.__file__)), f"{file} imports {inside}"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("build_fab_from_disk", ["app"]),
        ("fab_to_proto", ["fab"]),
        ("run_from_proto", ["run_proto"]),
        ("user_config_to_proto", ["user_config"]),
        ("simulation_config_from_json", ["payload"]),
        ("get_all_nested_objects", ["obj"]),
        ("inflate_object_from_contents", ["object_id", "object_contents"]),
        ("Fab", ["hash_str", "content", "verifications"]),
        ("ControlHttpClient", ["base_url"]),
    ],
)
def test_a_function_begins_as_it_did(name: str, parameters: list[str]) -> None:
    found = list(inspect.signature(getattr(flower_inside, name)).parameters)
    assert found[: len(parameters)] == parameters, f"{name} takes {found}"


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ("RegisterNodeRequest", {"public_key", "name"}),
        ("StartRunRequest", {"fab", "override_config", "override_federation_config"}),
        ("ListRunsRequest", {"run_id"}),
        ("StopRunRequest", {"run_id"}),
        ("StreamLogsRequest", {"run_id"}),
    ],
)
def test_a_request_has_the_fields_that_are_set(request_: str, fields: set[str]) -> None:
    found = {field.name for field in getattr(flower_inside, request_).DESCRIPTOR.fields}
    assert fields <= found, f"{request_} has {sorted(found)}"


@pytest.mark.parametrize("call", ["RegisterNode", "StartRun", "ListRuns", "StopRun", "StreamLogs"])
def test_the_control_client_has_the_calls_that_a_superlink_is_asked_by(call: str) -> None:
    assert f".{call}(" in inspect.getsource(superlink)
    assert callable(getattr(flower_inside.ControlHttpClient, call))


def test_the_identity_of_a_task_has_the_attributes_that_a_grid_sets() -> None:
    for name in ("run_id", "node_id", "task_id"):
        attribute = getattr(type(flower_inside.TaskIdentity), name)
        assert isinstance(attribute, property) and attribute.fset is not None
