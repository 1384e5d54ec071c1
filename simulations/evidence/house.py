"""Size and order of the code base, as one table: `python -m simulations.evidence house`."""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from simulations.evidence.modules import (
    PACKAGES,
    Module,
    bound_names,
    functions,
    import_cycles,
    import_graph,
    imports,
    read_modules,
    top_level_names,
)

AT_A_HOSPITAL = ("common", "clients")
SMALL = 60
VAGUE = ("found", "one", "told", "own", "said", "known", "held")


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
    """What is measured of a code base.

    Parameters
    ----------
    lines, modules
        Lines (all, as ``wc -l`` counts) and ``.py`` files, by package.
    imports_per_module
        Mean number of distinct other modules of the packages that a module names in its import
        statements, wherever they stand, over all modules (``__init__.py`` too). ``from a import b``
        names the module ``a.b`` where there is one, else ``a``.
    imports_at_top_per_module
        The same without the statements inside functions.
    function_imports
        Import statements inside a function, each counted once.
    function_imports_by_function
        The same statements, each counted once for every function around it.
    function_import_names
        The names that those statements import.
    small_modules
        Modules of fewer than 60 lines, without ``__init__.py`` and without files whose folder is no
        package.
    small_files
        All ``.py`` files of fewer than 60 lines.
    public_names, private_names
        Classes and functions at a module's top level whose name several modules define, with the
        modules; a private name begins with an underscore. A shared convention (``main``) counts.
    module_names
        File names that several modules have, with the modules; ``__init__`` and ``__main__`` aside.
    cycles
        Groups of modules that import each other, directly or through others; every import counts.
    largest_file
        The file with most lines.
    longest_function
        From its ``def`` to its last line, decorators aside.
    vague
        How often each name of ``VAGUE`` is bound: assignments, loops and comprehensions anywhere in
        a module; parameters do not count.
    bindings
        How often any name is bound, counted likewise.
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
    root
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
    modules = read_modules(root)
    if not modules:
        raise FileNotFoundError(f"{root} holds no Python file of {', '.join(PACKAGES)}")
    graph, graph_at_top = import_graph(modules), import_graph(modules, inside_functions=False)
    deferred = [entry for module in modules for entry in imports(module.tree) if entry[1]]
    definitions = repeated(
        (name, module.name) for module in modules for name in top_level_names(module.tree)
    )
    bindings = [name for module in modules for name in bound_names(module.tree)]
    return HouseFigures(
        lines={
            package: sum(module.lines for module in modules if module.package == package)
            for package in PACKAGES
        },
        modules={
            package: sum(module.package == package for module in modules) for package in PACKAGES
        },
        imports_per_module=sum(map(len, graph.values())) / len(modules),
        imports_at_top_per_module=sum(map(len, graph_at_top.values())) / len(modules),
        function_imports=len(deferred),
        function_imports_by_function=sum(depth for _, depth in deferred),
        function_import_names=sum(len(statement.names) for statement, _ in deferred),
        small_modules=sum(module.lines < SMALL for module in modules if _is_importable(module)),
        small_files=sum(module.lines < SMALL for module in modules),
        public_names={name: at for name, at in definitions.items() if not name.startswith("_")},
        private_names={name: at for name, at in definitions.items() if name.startswith("_")},
        module_names=repeated(
            (module.path.stem, module.name)
            for module in modules
            if not module.path.stem.startswith("__")
        ),
        cycles=import_cycles(graph),
        largest_file=_largest(Largest(module.path.as_posix(), module.lines) for module in modules),
        longest_function=_largest(
            Largest(f"{module.path.as_posix()}:{function.lineno} {function.name}", lines)
            for module in modules
            for function, lines in functions(module.tree)
        ),
        vague={name: bindings.count(name) for name in VAGUE},
        bindings=len(bindings),
    )


def _is_importable(module: Module) -> bool:
    return module.in_package and module.path.stem != "__init__"


def _largest(candidates: Iterable[Largest]) -> Largest:
    return max(candidates, key=lambda candidate: candidate.lines, default=Largest("none", 0))


def repeated(definitions: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Find the names with several places.

    Parameters
    ----------
    definitions
        Names, each with the module that defines it; a pair comes once.

    Returns
    -------
    dict[str, list[str]]
        The modules of each such name, sorted; the names with most modules first.
    """
    places: defaultdict[str, list[str]] = defaultdict(list)
    for name, place in definitions:
        places[name].append(place)
    several = [(name, sorted(at)) for name, at in places.items() if len(at) > 1]
    return dict(sorted(several, key=lambda entry: (-len(entry[1]), entry[0])))


def figures_table(figures: HouseFigures, *, names: bool = False) -> str:
    """Return the figures as one Markdown table.

    Parameters
    ----------
    figures
        The figures.
    names
        Whether the repeated names follow the table as a list, each with its modules.

    Returns
    -------
    str
        The table, without a newline at its end.
    """
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
    table = [f"| {title:<{width}} | {value} |" for title, value in rows]
    header = [f"| {'figure':<{width}} | value |", f"|{'-' * (width + 2)}|---|"]
    return "\n".join([*header, *table, *(_repeated_names(figures) if names else [])])


def _repeated_names(figures: HouseFigures) -> list[str]:
    groups = {
        "Public names": figures.public_names,
        "Private names": figures.private_names,
        "Module names": figures.module_names,
    }
    return [
        line
        for title, places in groups.items()
        for line in (
            f"\n{title} of several modules:\n",
            *(f"- {name} ×{len(at)}: {', '.join(at)}" for name, at in places.items()),
        )
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures of a code base; this one's without arguments."""
    parser = argparse.ArgumentParser(description="Measure the code base.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--json", action="store_true", help="print JSON, repeated names included")
    parser.add_argument("--names", action="store_true", help="list the repeated names as well")
    options = parser.parse_args(arguments)
    try:
        figures = measure_house(options.root)
    except (FileNotFoundError, SyntaxError) as problem:
        parser.error(str(problem))
    if options.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        print(figures_table(figures, names=options.names))


if __name__ == "__main__":
    main()
