"""The modules of a code base as syntax trees: what they import, define and bind.

Files are parsed and never imported, so that any state of the code base can be measured from any
other.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("common", "clients", "server", "simulations")

Import = ast.Import | ast.ImportFrom
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python file of the code base.

    Parameters
    ----------
    name
        Its dotted name; that of its folder for an ``__init__.py``.
    path
        Relative to the root.
    lines
        As ``wc -l`` counts them.
    tree
        Its syntax tree.
    in_package
        Whether its folder has an ``__init__.py``; other files are templates and not importable.
    """

    name: str
    path: Path
    lines: int
    tree: ast.Module
    in_package: bool

    @property
    def package(self) -> str:
        """The top-level package that the file belongs to."""
        return self.path.parts[0]


def read_modules(root: Path) -> list[Module]:
    """Parse every Python file of the packages under a folder.

    Parameters
    ----------
    root
        The folder that holds the packages; one that is missing has no modules.

    Returns
    -------
    list[Module]
        The files of ``find common clients server simulations -name '*.py'``, sorted by path in
        each package.

    Raises
    ------
    SyntaxError
        If a file is not Python.
    """
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return [_parse_file(root, file) for file in files]


def _parse_file(root: Path, file: Path) -> Module:
    content = file.read_bytes()
    path = file.relative_to(root)
    parts = path.parent.parts if file.stem == "__init__" else path.with_suffix("").parts
    return Module(
        name=".".join(parts),
        path=path,
        lines=content.count(b"\n"),
        tree=ast.parse(content, filename=str(file)),
        in_package=(file.parent / "__init__.py").exists(),
    )


def imports(node: ast.AST, depth: int = 0) -> Iterator[tuple[Import, int]]:
    """Yield the import statements under a node, each with the number of functions around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Import):
            yield child, depth
        yield from imports(child, depth + isinstance(child, Function))


def import_graph(
    modules: Sequence[Module], *, inside_functions: bool = True
) -> dict[str, set[str]]:
    """Return which other modules each module imports.

    Parameters
    ----------
    modules
        All modules of the code base; others are not followed.
    inside_functions
        Whether imports inside functions count.

    Returns
    -------
    dict[str, set[str]]
        The modules that a module imports, by its name.
    """
    names = {module.name for module in modules}
    return {
        module.name: {
            target
            for statement, depth in imports(module.tree)
            if inside_functions or not depth
            for target in _targets(statement, names)
        }
        - {module.name}
        for module in modules
    }


def _targets(statement: Import, names: Set[str]) -> set[str]:
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names} & names
    if statement.level or statement.module is None:
        return set()  # a relative import, which the tests of the code base refuse
    submodules = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return {name if name in names else statement.module for name in submodules} & names


def import_cycles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Find the modules that reach each other through imports.

    Parameters
    ----------
    graph
        The modules that each module imports, as `import_graph` returns them.

    Returns
    -------
    list[list[str]]
        The cycles' modules: the strongly connected parts of the graph with an edge, sorted.
    """
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Mapping[str, Set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(graph[name])
    return reached


def top_level_names(tree: ast.Module) -> set[str]:
    """Return the names of the classes and functions that a module defines at its top level."""
    return {node.name for node in tree.body if isinstance(node, Function | ast.ClassDef)}


def functions(tree: ast.Module) -> Iterator[tuple[Function, int]]:
    """Yield every function and method, each with its lines from ``def`` to its end."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            assert node.end_lineno is not None, "the parser gives every statement its end"
            yield node, node.end_lineno - node.lineno + 1


def bound_names(tree: ast.Module) -> list[str]:
    """Return every name that an assignment, loop or comprehension binds, once a binding."""
    return [
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
