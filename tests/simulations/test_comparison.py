"""The rows of a comparison."""

from simulations.comparison import METHODS


def test_the_table_has_its_rows_by_mode_and_xsite_last() -> None:
    assert list(METHODS) == [
        *("single-original", "single"),
        *("joint-original", "joint", "series-adapters", "parallel-adapters", "ms-net"),
        *("sepnorm", "sepnorm-contrastive"),
        *("fedavg", "fedprox", "scaffold", "ditto", "fedavgm", "fedadam", "fedyogi"),
        *("fedrdn", "fedwon", "fedbn", "moon", "fedproto", "fed-adapters"),
        *("xsite", "xsite-once", "xsite-averaged", "xsite-local"),
        *("xsite-across", "xsite-means", "xsite-no-anchors", "xsite-embedding"),
    ]
