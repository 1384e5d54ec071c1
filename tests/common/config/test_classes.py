"""Classes under the names that sites have for them."""

import pytest

from common.config.classes import LEFT_OUT, class_of, parse_classes_map, which_key
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
    assert parse_classes_map("tb=, Normal = non-covid") == {"tb": "", "Normal": "non-covid"}


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


def test_a_name_without_a_class_is_left_out_which_is_not_unknown() -> None:
    classes_map = parse_classes_map("tb=,Normal=non-covid")
    assert class_of("T B", CLASSES, classes_map) == LEFT_OUT
    assert class_of("flu", CLASSES, classes_map) is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Covid", "classes-map = 'Covid=covid'"),
        ("tb", "classes or classes-map ('tb=' leaves it out)"),
        ("", "classes or classes-map"),
    ],
)
def test_the_key_for_a_name_is_told(name: str, key: str) -> None:
    assert which_key(name, CLASSES) == key


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
        ("A=covid,a=", "gives 'a' two classes, 'covid' and ''"),
        ("covid=non-covid", "gives the class 'covid' another, 'non-covid'"),
        ("covid=", "gives the class 'covid' none"),
        ("x/y=covid", "classes-map holds 'x/y', which names no folder"),
        (".x=covid", r"classes-map holds '\.x', which names no folder"),
    ],
)
def test_a_map_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config({"classes-map": text})
