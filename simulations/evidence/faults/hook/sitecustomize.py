"""Holds a process still at a chosen moment, so that somebody can kill it, or another, just then.

Python imports a module of this name at every start. Where ``XSITE_FAULT`` is set, in JSON, a
function of one module is wrapped as soon as that module is imported::

    {"module": "clients.round", "name": "train", "after": false, "call": 2,
     "role": "hospital-a", "folder": "/a/folder/of/this/one/run"}

In processes whose ``XSITE_STATE`` ends with the role, its n-th call (counted over all processes)
writes ``reached`` into the folder and waits for ``go``, before the function or after it.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any


def wait(folder: Path) -> None:
    """Say that the moment is there, and wait until somebody says go."""
    (folder / "reached").write_text(str(os.getpid()), encoding="utf-8")
    while not (folder / "go").exists():
        time.sleep(0.02)


def held(function: Callable[..., Any], fault: dict[str, Any]) -> Callable[..., Any]:
    """Return the function with the wait in it."""
    folder = Path(fault["folder"])

    @functools.wraps(function)
    def holding(*arguments: Any, **named: Any) -> Any:
        with (folder / "calls").open("ab") as file:
            # Counted over all processes.
            file.write(b".")
            file.flush()
            now = file.tell() == fault["call"]
        if now and not fault["after"]:
            wait(folder)
        result = function(*arguments, **named)
        if now and fault["after"]:
            wait(folder)
        return result

    return holding


def hold_when_loaded(fault: dict[str, Any]) -> None:
    """Wrap the function as soon as its module is loaded."""
    execute = SourceFileLoader.exec_module

    def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
        execute(loader, module)
        if module.__name__ == fault["module"]:
            *owners, last = fault["name"].split(".")
            owner = functools.reduce(getattr, owners, module)
            setattr(owner, last, held(getattr(owner, last), fault))

    SourceFileLoader.exec_module = exec_module  # type: ignore[assignment, method-assign]


if "XSITE_FAULT" in os.environ:
    _fault = json.loads(os.environ["XSITE_FAULT"])
    if os.environ.get("XSITE_STATE", "").endswith(f"/{_fault['role']}"):
        hold_when_loaded(_fault)
