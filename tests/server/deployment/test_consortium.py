"""Who takes part: read strictly, since what it says stands in scripts that run as they are."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from server.deployment.consortium import read_consortium

REPOSITORY = Path(__file__).parents[3]
SOUND = 'name = "lab"\nhosts = ["xsite.example.org", "::1"]\n[[site]]\nname = "a"\n'


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "lab.toml").write_text(text)
    return tmp_path / "lab.toml"


def test_the_example_and_the_least_that_a_file_can_say_are_read(tmp_path: Path) -> None:
    example = read_consortium(REPOSITORY / "configs" / "consortium.toml")
    assert example.site_names == ("hospital-a", "hospital-b")
    least = read_consortium(written(tmp_path, SOUND))
    assert least.site_names == ("a",) and least.site[0].data_dir == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lab", "l a b"), "name: String should match pattern"),
        (("xsite.example.org", "xsite example"), "'xsite example' is neither a host's name nor"),
        (("xsite.example.org", "a.org; rm -rf /"), "is neither a host's name nor"),
        (("xsite.example.org", "a.org:9443"), "the port is a key of its own"),
        (("xsite.example.org", "2001:db8::7::1"), "is neither a host's name nor"),
        (("xsite.example.org", "203.0.113.300"), "nor an IP address"),
        (("xsite.example.org", "::"), "is no address at which hospitals can reach"),
        (("xsite.example.org", "0.0.0.0"), "is no address at which hospitals can reach"),
        (('name = "a"', 'name = "A b"'), "site.1.name: String should match pattern"),
        (('name = "a"', 'name = "coordinator"'), "cannot be called 'coordinator'"),
        (('name = "a"', 'name = "a"\n[[site]]\nname = "a"'), "two sites are called a"),
        (('name = "a"', 'name = "a"\ndata-dir = "images"'), "'images' is no absolute path"),
        (('name = "a"', 'name = "a"\ndata-dir = "/a/../b"'), "is no absolute path"),
        (('name = "a"', 'name = "a"\nstate-dir = "/a b"'), "is no absolute path of letters"),
        (('name = "a"', 'name = "a"\nstate-dir = "/$(id)"'), "is no absolute path of letters"),
        (('name = "a"', 'name = "a"\ngpus = "0; id"'), "site.1.gpus: String should match"),
        (('name = "a"', 'name = "a"\nuser = "root;id"'), "site.1.user: String should match"),
        (('name = "a"', 'name = "a"\nfolders = "/a"'), "no such key; there are name, data-dir"),
        (("[[site]]", "ports = 1\n[[site]]"), "ports: there is no such key; there are name, hosts"),
        (("[[site]]", "port = 99999\n[[site]]"), "port: Input should be less than"),
        (("[[site]]", "port = 9444\n[[site]]"), "port and superlink-port are both 9444"),
        (("[[site]]", "days = 0\n[[site]]"), "days: Input should be greater than"),
        (('[[site]]\nname = "a"\n', ""), "site: Field required"),
        (("[[site]]", "[[site"), "Cannot read"),
    ],
)
def test_nonsense_is_refused_by_key(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_consortium(written(tmp_path, SOUND.replace(*change)))
    assert said in str(caught.value) and "lab.toml" in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_consortium(tmp_path / "none.toml")
