"""Classes under the names that sites have for them."""

import pytest

from common.config.classes import class_of, parse_classes_map
from common.config.load import make_config
from common.errors import ConfigError

CLASSES = ("non-covid", "covid")
MAP = "COVID-19=covid, CT_COVID = covid,Normal=non-covid"


def test_a_map_is_read_in_its_order() -> None:
    assert parse_classes_map(MAP) == {
        "COVID-19": "covid",
        "CT_COVID": "covid",
        "Normal": "non-covid",
    }
    assert parse_classes_map("") == {}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("covid", "covid"),
        ("COVID-19", "covid"),
        ("covid-19", "covid"),
        (" Covid -19\u00a0", "covid"),
        ("NORMAL", "non-covid"),
        ("COVID", None),
        ("COVID_19", None),
        ("", None),
    ],
)
def test_a_name_counts_as_it_is_or_without_case_and_blanks(name: str, label: str | None) -> None:
    assert class_of(name, CLASSES, parse_classes_map(MAP)) == label


def test_a_name_as_it_is_comes_first() -> None:
    assert class_of("a b", ("ab", "x"), {"a b": "x"}) == "x"
    assert class_of("ab", ("ab", "x"), {"a b": "x"}) == "ab"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "COVID-19=flu",
            r"gives 'COVID-19' the class 'flu', which is none of classes \(non-covid, c",
        ),
        ("COVID-19", "holds 'COVID-19', which is not their-name=class"),
        ("=covid", "holds '=covid', which is not their-name=class"),
        ("A=covid,a =non-covid", "gives 'a' two classes, 'covid' and 'non-covid'"),
        ("covid=non-covid", "gives the class 'covid' another, 'non-covid'"),
        ("x/y=covid", "classes-map holds 'x/y', which names no folder"),
        (".x=covid", r"classes-map holds '\.x', which names no folder"),
    ],
)
def test_a_map_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config({"classes-map": text})
