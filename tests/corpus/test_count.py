"""How large the corpus is, counted by the lists that are run."""

import pytest

from tests.corpus import (
    approvals,
    checkpoints,
    configs,
    consortia,
    dicoms,
    folders,
    images,
    ledgers,
    messages,
    policies,
    runs,
    stores,
    studies,
    tables,
    test_caches,
)

CORPUS = {
    "folders": folders.FOLDERS,
    "tables of patients": tables.TABLES,
    "images": images.IMAGES,
    "DICOM files": dicoms.DICOMS,
    "configurations": configs.CONFIGS,
    "studies": studies.STUDIES,
    "consortia": consortia.CONSORTIA,
    "policies": policies.POLICIES,
    "ledgers": ledgers.LEDGERS,
    "approvals": approvals.APPROVALS,
    "caches": test_caches.CACHES,
    "runs that ended": (*runs.PREDICTED, *runs.ENDED),
    "interrupted runs": runs.INTERRUPTED,
    "the coordinator's checkpoints": checkpoints.CHECKPOINTS,
    "private stores": stores.STORES,
    "site infos": messages.INFOS,
    "replies": messages.REPLIES,
    "orders": messages.ORDERS,
}


def test_the_corpus_has_sixty_cases_and_many_more() -> None:
    assert sum(map(len, CORPUS.values())) >= 60


@pytest.mark.parametrize("kind", CORPUS)
def test_every_case_is_another_and_says_why(kind: str) -> None:
    cases = CORPUS[kind]
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.why for case in cases)
