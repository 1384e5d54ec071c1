"""Policies of sites (TOML): who may write them counts too."""

from pathlib import Path

from tests.corpus.case import Case

FILE = "policy.toml"


def policy(name: str, why: str, content: bytes | str, said: str = "", mode: int = 0o644) -> Case:
    """Return the case of such a file."""

    def make(folder: Path) -> None:
        path = folder / FILE
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    return Case(name, why, make, said)


def absent(folder: Path) -> None:
    """Write nothing."""


def is_a_folder(folder: Path) -> None:
    (folder / FILE).mkdir()


def links_to_itself(folder: Path) -> None:
    (folder / FILE).symlink_to(FILE)


CANNOT = r"Cannot read the policy .*policy\.toml"
POLICIES = (
    Case("absent", "a name mistyped: not the default", absent, CANNOT),
    Case("a folder", "in the file's place", is_a_folder, CANNOT),
    Case("link to itself", "made the wrong way", links_to_itself, CANNOT),
    policy("group may write", "an umask of 002", "", r"chmod go-w", 0o664),
    policy("all may write", "an unpacked archive", "", r"chmod go-w", 0o666),
    policy("UTF-16", "a Windows editor", "a = 1".encode("utf-16"), CANNOT),
    policy("not TOML", "JSON", '{"may-leave": []}', CANNOT),
    policy("10,000 brackets", "a parser's stack ends", "figures = " + "[" * 10_000, CANNOT),
    policy(
        "unknown key", "underscores: nothing would be kept", "approve_runs = true", "has a key 'a"
    ),
    policy("a table", "a section that is none", "[policy]\nfigures = []", "has a key 'policy'"),
    policy("text for true", "quoted", 'approve-runs = "yes"', "approve-runs: "),
    policy(
        "true for a number", "1 elsewhere", "min-prototype-images = true", "min-prototype-images: "
    ),
    policy("no list", "one figure", 'figures = "test/auc"', "figures: "),
    policy("a list of numbers", "which?", "figures = [1, 2]", "figures: "),
    policy("unknown part", "as for images", 'may-leave = ["images"]', "may-leave: "),
    policy(
        "unknown figure", "of another program", 'figures = ["test/rocauc"]', "which no site sends"
    ),
    policy("infinite", "no limit was meant: 0", "largest-update = inf", "largest-update: "),
    policy(
        "400 digits", "beyond any decimal", f"largest-update = 1{'0' * 400}", "largest-update: "
    ),
    policy("negative noise", "a slip", "prototype-noise = -0.1", "prototype-noise: "),
    policy("0 bytes", "the default", ""),
    policy("nothing may leave", "a site info is no figure", "may-leave = []\nfigures = []"),
    policy("a whole number for a decimal", "as people write", "largest-update = 3\n"),
)
