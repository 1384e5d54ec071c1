"""Size and order of a code base as one table: `python -m simulations.evidence house`.

Files are parsed and never imported, so that any state of the code base can be measured from any
other.
"""

import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.sparse.csgraph import connected_components

from common.formatting.tables import plain_table
from simulations.report.markdown import markdown

PACKAGES = ("common", "clients", "server", "simulations")
AT_A_HOSPITAL = ("common", "clients")
SMALL = 60

Import = ast.Import | ast.ImportFrom
Function = ast.FunctionDef | ast.AsyncFunctionDef
Figures = dict[str, int | float | str]
Names = dict[str, list[str]]


@dataclass(frozen=True)
class Module:
    """A Python file: its dotted name, its path below the root, its lines as ``wc -l`` counts.

    ``importable``: neither an ``__init__.py`` nor a template, whose folder has none.
    """

    name: str
    path: Path
    lines: int
    tree: ast.Module
    importable: bool

    @classmethod
    def read(cls, root: Path, file: Path) -> "Module":
        """Parse a file."""
        content, path = file.read_bytes(), file.relative_to(root)
        initial = file.stem == "__init__"
        name = ".".join(path.parent.parts if initial else path.with_suffix("").parts)
        importable = not initial and (file.parent / "__init__.py").exists()
        tree = ast.parse(content, filename=str(file))
        return cls(name, path, content.count(b"\n"), tree, importable)


def measure_house(root: Path) -> tuple[Figures, dict[str, Names]]:
    """Measure the code base under a folder.

    Imports a module are distinct other modules of the packages, a mean over all modules; ``from a
    import b`` names the module ``a.b`` where there is one, else ``a``. Names of several modules are
    those of classes and functions at the top level, with the modules. A function has the lines from
    its ``def``.

    Parameters
    ----------
    root : Path
        The folder that holds the packages.

    Returns
    -------
    figures : dict
        Figures by what they count.
    names : dict
        Of the kinds ``public``, ``private`` and ``module``: the names of several modules, and
        which.

    Raises
    ------
    FileNotFoundError
        If none of the packages has a Python file there.
    SyntaxError
        If a file is not Python.
    """
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    modules = [Module.read(root, file) for file in files]
    if not modules:
        raise FileNotFoundError(f"{root} holds no Python file of {', '.join(PACKAGES)}")
    lines, counts = Counter(dict.fromkeys(PACKAGES, 0)), Counter(dict.fromkeys(PACKAGES, 0))
    for module in modules:
        lines[module.path.parts[0]] += module.lines
        counts[module.path.parts[0]] += 1
    graph, graph_at_top = import_graph(modules), import_graph(modules, inside_functions=False)
    definitions = repeated(
        (node.name, module.name)
        for module in modules
        for node in module.tree.body
        if isinstance(node, Function | ast.ClassDef)
    )
    names = {
        "public": {name: at for name, at in definitions.items() if not name.startswith("_")},
        "private": {name: at for name, at in definitions.items() if name.startswith("_")},
        "module": repeated((m.path.stem, m.name) for m in modules if m.path.stem[:2] != "__"),
    }
    functions = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{module.path}:{node.lineno} {node.name}")
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    ]
    figures: Figures = {
        **{f"lines of {package}": count for package, count in lines.items()},
        "lines": lines.total(),
        "lines that reach a hospital (common, clients)": sum(lines[p] for p in AT_A_HOSPITAL),
        **{f"modules of {package}": count for package, count in counts.items()},
        "modules": len(modules),
        "imports a module, those in functions too": sum(map(len, graph.values())) / len(modules),
        "imports a module, at the top level": sum(map(len, graph_at_top.values())) / len(modules),
        "function-level imports": sum(inside for m in modules for _, inside in imports(m.tree)),
        f"modules under {SMALL} lines": sum(m.importable and m.lines < SMALL for m in modules),
        **{f"{kind} names of several modules": len(names[kind]) for kind in names},
        "import cycles": len(import_cycles(graph)),
        "largest file": _largest((module.lines, str(module.path)) for module in modules),
        "longest function": _largest(functions),
    }
    return figures, names


def imports(node: ast.AST, inside: bool = False) -> Iterator[tuple[Import, bool]]:
    """Yield the import statements under a node, each with whether it is inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Import):
            yield child, inside
        yield from imports(child, inside or isinstance(child, Function))


def import_graph(
    modules: Iterable[Module], *, inside_functions: bool = True
) -> dict[str, set[str]]:
    """Return which others of these modules each one imports."""
    names = {module.name for module in modules}
    return {
        module.name: {
            target
            for statement, inside in imports(module.tree)
            if inside_functions or not inside
            for target in _targets(statement, names)
        }
        - {module.name}
        for module in modules
    }


def _targets(statement: Import, names: Set[str]) -> set[str]:
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names} & names
    # A relative import has no module here: the tests of the code base refuse it.
    submodules = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return {name if name in names else str(statement.module) for name in submodules} & names


def import_cycles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other through imports, sorted."""
    edges = np.array([[target in graph[name] for target in graph] for name in graph])
    _, labels = connected_components(edges, connection="strong")
    groups = defaultdict(list)
    for name, label in sorted(zip(graph, labels.tolist(), strict=True)):
        groups[label].append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def repeated(definitions: Iterable[tuple[str, str]]) -> Names:
    """Return the names with several places, those with most first."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for name, place in definitions:
        places[name].add(place)
    several = [(name, sorted(at)) for name, at in places.items() if len(at) > 1]
    return dict(sorted(several, key=lambda entry: (-len(entry[1]), entry[0])))


def _largest(candidates: Iterable[tuple[int, str]]) -> str:
    lines, place = max(candidates, key=lambda candidate: candidate[0], default=(0, "none"))
    return f"{lines} ({place})"


def main(
    root: Annotated[
        Path, typer.Argument(help="Folder of the packages.", show_default=False)
    ] = Path(__file__).parents[2],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all names.")] = False,
    names: Annotated[bool, typer.Option("--names", help="List the repeated names too.")] = False,
) -> None:
    """Print the figures of a code base; of this one if none is named."""
    try:
        figures, repeated_names = measure_house(root)
    except (FileNotFoundError, SyntaxError) as problem:
        raise typer.BadParameter(str(problem)) from problem
    if as_json:
        print(json.dumps({"figures": figures, "names": repeated_names}, indent=2))
        return
    forms = {int: "{:,}", float: "{:.2f}", str: "{}"}
    rows = [(title, forms[type(value)].format(value)) for title, value in figures.items()]
    print(markdown(plain_table("Size and order", ("figure", "value"), rows)))
    for kind, held in repeated_names.items() if names else ():
        print(f"{kind.capitalize()} names of several modules:\n")
        print("".join(f"- {name} ×{len(at)}: {', '.join(at)}\n" for name, at in held.items()))
