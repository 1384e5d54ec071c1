"""The demonstration: two synthetic hospitals, three ways to train, a table and a report."""

from pathlib import Path

from rich.console import Console

from common.config.load import load_config
from common.console.progress import make_listener
from common.console.tables import say
from simulations.compare import compare
from simulations.comparison import print_comparison, read_comparison

# A link to configs/demo.toml, which an installed copy of xsite does not have.
SETTINGS = Path(__file__).with_name("demo.toml")


def demo(runs: Path | None = None, name: str | None = None) -> Path:
    """Compare the three modes on two synthetic hospitals; a few minutes on two cores.

    Parameters
    ----------
    runs : Path, optional
        The folder of all runs; ``./runs`` without it.
    name : str, optional
        Name of the comparison's folder; ``demo`` without it.

    Returns
    -------
    Path
        ``report.html``.

    Raises
    ------
    RunError
        If a run fails, or the folder holds something else.
    """
    base = runs or Path("runs")
    config = load_config(SETTINGS, {"run-name": name or "demo"})
    listener = make_listener()
    try:
        page = compare(config, base, (0,), (0,), ("pooled", "federated", "single"), listener)
    finally:
        listener.close()
    console = Console()
    print_comparison(console, read_comparison(page.parent))
    say(console, f"Report: {page}")
    return page
