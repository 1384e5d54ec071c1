"""Make evidence: attacks, benchmarks, faults and figures of the code, each by its name.

python -m simulations.evidence NAME [OPTIONS]
"""

import sys
from importlib import import_module

import typer

from common.console.text import settle_encodings

MAKERS = {
    "attacks": ("attacks.run:main", "what attacks on synthetic hospitals get, defences off and on"),
    "poisoning": ("attacks.poisoning:main", "what it costs four hospitals that a fifth one lies"),
    "fidelity": ("fidelity:main", "how near a federated gradient is to the pooled one"),
    "training": ("benchmarks.training:main", "images per second of training, against a plain loop"),
    "round": ("benchmarks.rounds:simulated", "what a federated round costs beyond its training"),
    "deployment-round": ("benchmarks.rounds:deployed", "the same over TLS, part by part"),
    "decoding": ("benchmarks.decoding:main", "images decoded per second, against another checkout"),
    "privacy": ("benchmarks.privacy:main", "ε and AUC at several levels of noise"),
    "soak": ("benchmarks.soak:main", "memory, files and processes over many rounds"),
    "faults": ("faults.matrix:main", "every process of a deployment, killed at every moment"),
    "house": ("house:main", "size and order of the code base"),
}
"""Name → the module below this package with the function that makes it, and what it makes."""


def main() -> None:
    """Make what the command line names, or list what there is."""
    settle_encodings()
    name, *options = sys.argv[1:] or ["--help"]
    if name not in MAKERS:
        print("Usage: python -m simulations.evidence NAME [OPTIONS]\n")
        print("\n".join(f"  {each:<18}{makes}" for each, (_, makes) in MAKERS.items()))
        raise SystemExit(name != "--help")
    # Only what is asked for: an import more would count in the memory that a benchmark measures.
    module, _, function = MAKERS[name][0].partition(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(import_module(f"simulations.evidence.{module}"), function))
    app(options, prog_name=f"python -m simulations.evidence {name}")


if __name__ == "__main__":
    main()
