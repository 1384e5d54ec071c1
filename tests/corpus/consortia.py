"""Files of consortia (TOML): what they say stands in scripts that run as root."""

from pathlib import Path

from tests.corpus.case import Case

FILE = "lab.toml"
SOUND = 'name = "lab"\nhosts = ["xsite.example.org"]\n[[site]]\nname = "a"\n'


def consortium(name: str, why: str, content: bytes | str, said: str = "") -> Case:
    """Return the case of such a file."""

    def make(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / FILE).write_bytes(data)

    return Case(name, why, make, said)


def changed(name: str, why: str, old: str, new: str, said: str = "") -> Case:
    """Return the case of a sound file with a text changed."""
    assert old in SOUND
    return consortium(name, why, SOUND.replace(old, new), said)


def with_key(name: str, why: str, line: str, said: str = "") -> Case:
    """Return the case of a sound file whose hospital has a further line."""
    return consortium(name, why, f"{SOUND}{line}\n", said)


def key_of_nobody(folder: Path) -> None:
    (folder / FILE).write_text(f'{SOUND}public-key = "{folder}/a.pub"\n')
    (folder / "a.pub").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")


def key_of_another_kind(folder: Path) -> None:
    (folder / FILE).write_text(f'{SOUND}public-key = "{folder}/a.pub"\n')
    (folder / "a.pub").write_bytes(b"ssh-ed25519 AAAA a\n")


def key_that_is_damaged(folder: Path) -> None:
    (folder / FILE).write_text(f'{SOUND}public-key = "{folder}/a.pub"\n')
    (folder / "a.pub").write_bytes(b"ecdsa-sha2-nistp384 \xff\xfe half of it")


def is_a_folder(folder: Path) -> None:
    (folder / FILE).mkdir()


CONSORTIA = (
    Case("a folder", "in the file's place", is_a_folder, r"Cannot read .*lab\.toml"),
    consortium("0 bytes", "a copy that a full disk ended", "", r"lab\.toml: .*Field required"),
    consortium("UTF-16", "a Windows editor", SOUND.encode("utf-16"), r"Cannot read .*lab\.toml"),
    consortium(
        "10,000 brackets", "a parser's stack ends", "hosts = " + "[" * 10_000, "Cannot read"
    ),
    consortium(
        "a run's configuration", "another file", "epochs = 3", r"there is no such key|Field"
    ),
    changed(
        "a site that is no table",
        "a list of names",
        '[[site]]\nname = "a"',
        'site = ["a"]',
        "site.1",
    ),
    changed("one site, no list", "single brackets", "[[site]]", "[site]", "site: "),
    changed("a host that is no text", "a number", '"xsite.example.org"', "1", "hosts.1"),
    changed(
        "a host with a zone",
        "no certificate holds one",
        "xsite.example.org",
        "fe80::1%eth0",
        "hosts",
    ),
    changed("a host of 300 letters", "no host's", "xsite.example.org", "x" * 300, "hosts"),
    changed(
        "a host of two lines",
        "it stands in scripts",
        "xsite.example.org",
        "a\\nb",
        "hosts.1: 'a.nb'",
    ),
    changed("no host", "an empty list", '"xsite.example.org"', "", "hosts"),
    changed("a name that leads elsewhere", "a traversal", '"lab"', '"../lab"', "name: "),
    changed("a site that leads elsewhere", "a traversal", '"a"', '"../a"', "site.1.name"),
    with_key(
        "a path of two lines", "it stands in scripts", 'data-dir = "/a\\nb"', "site.1.data-dir"
    ),
    with_key(
        "a path with a quote", "it stands in scripts", 'state-dir = "/a\'b"', "site.1.state-dir"
    ),
    with_key("true for a port", "1 elsewhere", "runtime-port = true", "site.1.runtime-port"),
    with_key("port 0", "any: none", "runtime-port = 0", "site.1.runtime-port"),
    with_key(
        "a key that is not there", "not sent yet", 'public-key = "/none/a.pub"', "public-key /none"
    ),
    Case("a private key", "the wrong one of two files", key_of_nobody, r"a\.pub is no public key"),
    Case(
        "a key of another kind",
        "the default of ssh-keygen",
        key_of_another_kind,
        r"a\.pub is no pub",
    ),
    Case(
        "a damaged key",
        "it stands in the coordinator's list",
        key_that_is_damaged,
        r"a\.pub is no p",
    ),
    changed("an IPv6 address", "as in a laboratory", "xsite.example.org", "2001:db8::1"),
)
