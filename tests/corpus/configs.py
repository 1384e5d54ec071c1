"""Configuration files (TOML), as people and programs write them."""

from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case

FILE = "run.toml"
SOUND = b"folds = 3\nimage-size = 32\n"


def config(name: str, why: str, content: bytes | str, said: str = "") -> Case:
    """Return the case of such a file; the sentence names the file too."""

    def make(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / FILE).write_bytes(data)

    return Case(name, why, make, said)


def placed(name: str, why: str, make: Callable[[Path], None], said: str) -> Case:
    """Return the case of something in the file's place."""
    return Case(name, why, lambda folder: make(folder / FILE), said)


KEY = r"Configuration key '{}' \(in .*run\.toml\): .*"
NOT_TOML = r"run\.toml is not TOML"
CONFIGS = (
    placed("a folder", "in the file's place", lambda path: path.mkdir(), r"run\.toml: Is a dir"),
    placed("link to itself", "made the wrong way", lambda p: p.symlink_to(p), r"run\.toml: Too m"),
    config("UTF-16", "a Windows editor", SOUND.decode().encode("utf-16"), NOT_TOML),
    config("Latin-1", "an old editor", b"# f\xfcr uns\n" + SOUND, NOT_TOML),
    config("NUL bytes", "a damaged disk", SOUND + bytes(20), NOT_TOML),
    config("BOM", "a Windows editor", b"\xef\xbb\xbf" + SOUND, NOT_TOML),
    config("YAML", "of another program", "folds: 3\nimage-size: 32\n", NOT_TOML),
    config("a key twice", "two files joined", SOUND + SOUND, NOT_TOML),
    config("a merge's marks", "two people's changes", b"<<<<<<< ours\n" + SOUND, NOT_TOML),
    config("10,000 brackets", "a parser's stack ends", "folds = " + "[" * 10_000, NOT_TOML),
    config("5,000 digits", "no program counts so far", f"seed = {'9' * 5000}", NOT_TOML),
    config("unknown key", "underscores", "image_size = 32", r"'image_size' \(in .*'image-size'"),
    config("a table", "a section that is none", "[folds]\nnumber = 3", KEY.format("folds")),
    config("a key of two lines", "quoted", '"two\\nlines" = 1', r"key 'two\\nlines'"),
    config("text for a number", "quoted", 'folds = "3"', KEY.format("folds")),
    config("a decimal for a whole number", "2.0", "folds = 3.0", KEY.format("folds")),
    config("true for a number", "true is 1 elsewhere", "epochs = true", KEY.format("epochs")),
    config("1 for true", "1 is true elsewhere", "flip = 1", KEY.format("flip")),
    config("a date", "TOML has them", "run-name = 2026-01-01", KEY.format("run-name")),
    config("a list", "sites as a list", 'sites = ["a", "b"]', KEY.format("sites")),
    config("negative", "a slip", "epochs = -1", KEY.format("epochs")),
    config("NaN", "0 / 0", "alpha = nan", KEY.format("alpha")),
    config("infinite", "no limit was meant", "clip-norm = inf", KEY.format("clip-norm")),
    config("400 digits for a decimal", "beyond any", f"alpha = 1{'0' * 400}", KEY.format("alpha")),
    config("beyond 64 bits", "no message holds it", f"seed = {2**63}", KEY.format("seed")),
    config("a text of 1 MB", "pasted", f'device = "{"x" * 2**20}"', KEY.format("device")),
    config("no such device", "a slip", 'device = "gpu"', KEY.format("device")),
    config("a site twice", "a slip", 'sites = "a,a"', "names one site twice"),
    config("a site with a slash", "leads elsewhere", 'sites = "../a,b"', "sites holds '../a'"),
    config("a site of 64 letters", "too long", f'sites = "{"a" * 64}"', "at most 63"),
    config("no site", "commas alone", 'sites = ",,"', "sites is empty"),
    config("one class", "a slip", 'classes = "covid"', "at least two different classes"),
    config(
        "a class with a slash",
        "leads elsewhere",
        'classes = "../x,covid"',
        r"classes holds '\.\./x'",
    ),
    config("a class that is a root", "all of a disk", 'classes = "/,covid"', "classes holds '/'"),
    config("a class called ..", "leads elsewhere", 'classes = "..,covid"', r"classes holds '\.\.'"),
    config("a NUL in a path", "no path has one", 'data = "/data\\u0000"', KEY.format("data")),
    config("a line break in a path", "pasted", 'cache-dir = "/a\\nb"', KEY.format("cache-dir")),
    config(
        "a name of 300 letters", "no folder's", f'run-name = "{"x" * 300}"', KEY.format("run-name")
    ),
    config("fold beyond folds", "counted from 1", "folds = 3\nfold = 3", "fold is 3"),
    config(
        "contradiction", "a larger crop", "cache-size = 16\nimage-size = 32", "cache-size is 16"
    ),
    config("0 bytes", "the defaults", b""),
    config("comments alone", "the defaults", "# nothing\n\n   # yet\n"),
    config("CRLF", "of Windows", SOUND.replace(b"\n", b"\r\n")),
    config("a whole number for a decimal", "as people write", b"alpha = 1\n" + SOUND),
    config(
        "hexadecimal and underscores", "TOML has them", "seed = 0x10\nbatch-size = 1_6\nfolds = 3"
    ),
)
