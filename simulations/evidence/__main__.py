"""Make evidence: attacks, benchmarks, faults and figures of the code, each by its name.

python -m simulations.evidence NAME [OPTIONS]
"""

import sys
from importlib import import_module

import typer

MAKERS = {
    "attacks": ("attacks.run", "what attacks on synthetic hospitals get, defences off and on"),
    "poisoning": ("attacks.poisoning", "what it costs four hospitals that a fifth one lies"),
    "training": ("benchmarks.training", "images per second of training, against a plain loop"),
    "round": ("benchmarks.round", "what a federated round costs beyond its training"),
    "deployment-round": ("benchmarks.deployment_round", "the same over TLS, part by part"),
    "privacy": ("benchmarks.privacy", "ε and AUC at several levels of noise"),
    "soak": ("benchmarks.soak", "memory, files and processes over many rounds"),
    "faults": ("faults.matrix", "every process of a deployment, killed at every moment"),
    "house": ("house", "size and order of the code base"),
}
"""Name → the module below this package whose ``main`` makes it, and what it makes."""


def main() -> None:
    """Make what the command line names, or list what there is."""
    name, *options = sys.argv[1:] or ["--help"]
    if name not in MAKERS:
        print("Usage: python -m simulations.evidence NAME [OPTIONS]\n")
        print("\n".join(f"  {each:<18}{makes}" for each, (_, makes) in MAKERS.items()))
        raise SystemExit(name != "--help")
    # Only what is asked for: an import more would count in the memory that a benchmark measures.
    maker = import_module(f"simulations.evidence.{MAKERS[name][0]}")
    app = typer.Typer(add_completion=False)
    app.command()(maker.main)
    app(options, prog_name=f"python -m simulations.evidence {name}")


if __name__ == "__main__":
    main()
