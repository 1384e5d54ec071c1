"""What this package uses of Flower's inside: where a release of Flower moves it, this says what."""

import inspect
import subprocess
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("flwr.supernode.cli", "flwr_clientapp", []),
        ("flwr.supercore.cli", "flower_superexec", []),
        ("flwr.supernode.runtime.run_clientapp", "install_from_fab", ["fab_file"]),
    ],
)
def test_a_function_is_where_it_was_and_begins_as_it_did(
    module: str, name: str, parameters: list[str]
) -> None:
    function = getattr(import_module(module), name)
    found = list(inspect.signature(function).parameters)
    assert found[: len(parameters) or None] == parameters, f"{module}.{name} takes {found}"


def test_the_superexec_starts_programs_through_its_module_s_subprocess() -> None:
    executor = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    assert executor.subprocess is subprocess
    assert "subprocess.Popen(" in inspect.getsource(executor)
