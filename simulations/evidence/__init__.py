"""Scripts that measure xsite: attacks, benchmarks, faults."""
