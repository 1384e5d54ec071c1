"""Size and order of a code base as one table: `python -m simulations.evidence house`.

Files are parsed and never imported, so that any state of the code base can be measured from any
other.
"""

import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

PACKAGES = ("common", "clients", "server", "simulations")
AT_A_HOSPITAL = ("common", "clients")
SMALL = 60
VAGUE = ("found", "one", "told", "own", "said", "known", "held")

Import = ast.Import | ast.ImportFrom
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python file: its dotted name, its path below the root, its lines as ``wc -l`` counts.

    ``in_package``: its folder has an ``__init__.py``; others are templates and not importable.
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


@dataclass(frozen=True)
class Largest:
    """The largest of its kind: where it stands and how many lines it has."""

    place: str
    lines: int

    def __str__(self) -> str:
        """Return the lines and, in brackets, the place."""
        return f"{self.lines} ({self.place})"


@dataclass(frozen=True)
class HouseFigures:
    """What is measured of a code base; the table's rows say what each figure counts.

    Imports a module are distinct other modules of the packages, a mean over all modules; ``from a
    import b`` names the module ``a.b`` where there is one, else ``a``. Names of several modules are
    those of classes and functions at the top level, with the modules. A function has the lines from
    its ``def``. Bindings are assignments, loops and comprehensions; parameters do not count.
    """

    lines: dict[str, int]
    modules: dict[str, int]
    imports_per_module: float
    imports_at_top_per_module: float
    function_imports: int
    function_imports_by_function: int
    function_import_names: int
    small_modules: int
    small_files: int
    public_names: dict[str, list[str]]
    private_names: dict[str, list[str]]
    module_names: dict[str, list[str]]
    cycles: list[list[str]]
    largest_file: Largest
    longest_function: Largest
    vague: dict[str, int]
    bindings: int

    @property
    def hospital_lines(self) -> int:
        """Lines of the packages that a hospital installs."""
        return sum(self.lines[package] for package in AT_A_HOSPITAL)

    @property
    def vague_share(self) -> float:
        """Share of the names of ``VAGUE`` among all bindings, 0 to 1."""
        return sum(self.vague.values()) / self.bindings if self.bindings else 0.0


def measure_house(root: Path) -> HouseFigures:
    """Measure the code base under a folder.

    Parameters
    ----------
    root : Path
        The folder that holds the packages.

    Returns
    -------
    HouseFigures
        The figures.

    Raises
    ------
    FileNotFoundError
        If none of the packages has a Python file there.
    SyntaxError
        If a file is not Python.
    """
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    modules = [_parse(root, file) for file in files]
    if not modules:
        raise FileNotFoundError(f"{root} holds no Python file of {', '.join(PACKAGES)}")
    graph, graph_at_top = import_graph(modules), import_graph(modules, inside_functions=False)
    deferred = [entry for module in modules for entry in imports(module.tree) if entry[1]]
    definitions = repeated(
        (node.name, module.name)
        for module in modules
        for node in {node.name: node for node in _defined(module.tree)}.values()
    )
    bindings = [name for module in modules for name in _bound(module.tree)]
    named = [module for module in modules if not module.path.stem.startswith("__")]
    importable = [m for m in modules if m.in_package and m.path.stem != "__init__"]
    return HouseFigures(
        lines={p: sum(m.lines for m in modules if m.package == p) for p in PACKAGES},
        modules={p: sum(m.package == p for m in modules) for p in PACKAGES},
        imports_per_module=sum(map(len, graph.values())) / len(modules),
        imports_at_top_per_module=sum(map(len, graph_at_top.values())) / len(modules),
        function_imports=len(deferred),
        function_imports_by_function=sum(depth for _, depth in deferred),
        function_import_names=sum(len(statement.names) for statement, _ in deferred),
        small_modules=sum(module.lines < SMALL for module in importable),
        small_files=sum(module.lines < SMALL for module in modules),
        public_names={name: at for name, at in definitions.items() if not name.startswith("_")},
        private_names={name: at for name, at in definitions.items() if name.startswith("_")},
        module_names=repeated((module.path.stem, module.name) for module in named),
        cycles=import_cycles(graph),
        largest_file=_largest(Largest(m.path.as_posix(), m.lines) for m in modules),
        longest_function=_largest(
            Largest(f"{m.path.as_posix()}:{node.lineno} {node.name}", _lines_of(node))
            for m in modules
            for node in ast.walk(m.tree)
            if isinstance(node, Function)
        ),
        vague={name: bindings.count(name) for name in VAGUE},
        bindings=len(bindings),
    )


def _parse(root: Path, file: Path) -> Module:
    content = file.read_bytes()
    path = file.relative_to(root)
    parts = path.parent.parts if file.stem == "__init__" else path.with_suffix("").parts
    tree = ast.parse(content, filename=str(file))
    in_package = (file.parent / "__init__.py").exists()
    return Module(".".join(parts), path, content.count(b"\n"), tree, in_package)


def imports(node: ast.AST, depth: int = 0) -> Iterator[tuple[Import, int]]:
    """Yield the import statements under a node, each with the number of functions around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Import):
            yield child, depth
        yield from imports(child, depth + isinstance(child, Function))


def import_graph(
    modules: Sequence[Module], *, inside_functions: bool = True
) -> dict[str, set[str]]:
    """Return which others of these modules each one imports."""
    names = {module.name for module in modules}
    graph = {}
    for module in modules:
        statements = [s for s, depth in imports(module.tree) if inside_functions or not depth]
        targets = {target for statement in statements for target in _targets(statement, names)}
        graph[module.name] = targets - {module.name}
    return graph


def _targets(statement: Import, names: Set[str]) -> set[str]:
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names} & names
    if statement.level or statement.module is None:
        return set()  # a relative import, which the tests of the code base refuse
    submodules = [f"{statement.module}.{alias.name}" for alias in statement.names]
    return {name if name in names else statement.module for name in submodules} & names


def import_cycles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other through imports, sorted."""
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


def repeated(definitions: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names with several places, those with most first; a (name, place) comes once."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for name, place in definitions:
        places[name].append(place)
    several = [(name, sorted(at)) for name, at in places.items() if len(at) > 1]
    return dict(sorted(several, key=lambda entry: (-len(entry[1]), entry[0])))


def _defined(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    return (node for node in tree.body if isinstance(node, Function | ast.ClassDef))


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _lines_of(node: Function) -> int:
    assert node.end_lineno is not None, "the parser gives every statement its end"
    return node.end_lineno - node.lineno + 1


def _largest(candidates: Iterable[Largest]) -> Largest:
    return max(candidates, key=lambda candidate: candidate.lines, default=Largest("none", 0))


def figures_table(figures: HouseFigures, *, names: bool = False) -> str:
    """Return the figures as one Markdown table; with ``names``, the repeated ones below it."""
    lines, modules = sum(figures.lines.values()), sum(figures.modules.values())
    rows = [
        *((f"lines of {package}", f"{count:,}") for package, count in figures.lines.items()),
        ("lines", f"{lines:,}"),
        ("lines that reach a hospital (common, clients)", f"{figures.hospital_lines:,}"),
        *((f"modules of {package}", str(count)) for package, count in figures.modules.items()),
        ("modules", str(modules)),
        ("imports a module, those in functions too", f"{figures.imports_per_module:.2f}"),
        ("imports a module, at the top level", f"{figures.imports_at_top_per_module:.2f}"),
        ("function-level imports: statements", str(figures.function_imports)),
        ("  once for each function around them", str(figures.function_imports_by_function)),
        ("  names that they import", str(figures.function_import_names)),
        (f"modules under {SMALL} lines", str(figures.small_modules)),
        (f"files under {SMALL} lines, `__init__.py` too", str(figures.small_files)),
        ("public names that several modules define", str(len(figures.public_names))),
        ("private names that several modules define", str(len(figures.private_names))),
        ("module names that several modules have", str(len(figures.module_names))),
        ("import cycles", str(len(figures.cycles))),
        ("largest file", str(figures.largest_file)),
        ("longest function", str(figures.longest_function)),
        *((f"bindings of `{name}`", str(count)) for name, count in figures.vague.items()),
        ("share of these in all bindings", f"{figures.vague_share:.1%} of {figures.bindings:,}"),
    ]
    width = max(len(title) for title, _ in rows)
    table = [f"| {'figure':<{width}} | value |", f"|{'-' * (width + 2)}|---|"]
    table += [f"| {title:<{width}} | {value} |" for title, value in rows]
    for kind in ("public", "private", "module") if names else ():
        table.append(f"\n{kind.capitalize()} names of several modules:\n")
        for name, at in getattr(figures, f"{kind}_names").items():
            table.append(f"- {name} ×{len(at)}: {', '.join(at)}")
    return "\n".join(table)


def main(
    root: Annotated[
        Path, typer.Argument(help="Folder of the packages.", show_default=False)
    ] = Path(__file__).parents[2],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all names.")] = False,
    names: Annotated[bool, typer.Option("--names", help="List the repeated names too.")] = False,
) -> None:
    """Print the figures of a code base; of this one if none is named."""
    try:
        figures = measure_house(root)
    except (FileNotFoundError, SyntaxError) as problem:
        raise typer.BadParameter(str(problem)) from problem
    print(json.dumps(asdict(figures), indent=2) if as_json else figures_table(figures, names=names))


if __name__ == "__main__":
    typer.run(main)
