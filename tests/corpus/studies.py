"""Files of studies (TOML)."""

from pathlib import Path

from tests.corpus.case import Case

FILE = "held.toml"
SOUND = 'methods = ["joint"]\nfolds = [0]\nseeds = [0]\n[run]\nsynthetic-patients = 8\nfolds = 3\n'
OWN = '[[method]]\nname = "{}"\nlabel = "Mine"\nmode = "pooled"\nsettings = {{ {} }}\n'


def study(name: str, why: str, content: bytes | str, said: str) -> Case:
    """Return the case of such a file."""

    def make(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / FILE).write_bytes(data)

    return Case(name, why, make, said)


def changed(name: str, why: str, old: str, new: str, said: str) -> Case:
    """Return the case of a sound file with a text changed."""
    assert old in SOUND
    return study(name, why, SOUND.replace(old, new), said)


def own(name: str, why: str, called: str, settings: str, said: str) -> Case:
    """Return the case of a study with a method of its own."""
    text = SOUND.replace('"joint"', f'"{called}"') + OWN.format(called, settings)
    return study(name, why, text, said)


STUDIES = (
    study("0 bytes", "a copy that a full disk ended", "", r"held\.toml names no methods"),
    study("Latin-1", "an old editor", b"# f\xfcr\n" + SOUND.encode(), r"held\.toml is not TOML"),
    study("10,000 brackets", "a parser's stack ends", "folds = " + "[" * 10_000, "is not TOML"),
    study("a run's configuration", "another file", "epochs = 3", r"has no key|names no"),
    changed("text for a fold", "quoted", "folds = [0]", 'folds = ["0"]', r"folds\.0"),
    changed("true for a seed", "1 elsewhere", "seeds = [0]", "seeds = [true]", r"seeds\.0"),
    changed(
        "a seed beyond 64 bits", "no message holds it", "seeds = [0]", f"seeds = [{2**64}]", "seed"
    ),
    changed(
        "a negative fold", "from the end, elsewhere", "folds = [0]", "folds = [-1]", "no fold -1"
    ),
    changed("a method that is no text", "a number", '["joint"]', "[1]", r"methods\.0"),
    changed(
        "run that is no table",
        "a text",
        "[run]\nsynthetic-patients = 8\nfolds = 3",
        'run = "fast"',
        "run: ",
    ),
    changed("a table in run", "one too deep", "folds = 3", "[run.folds]\nn = 3", "'folds'"),
    own(
        "a method that leads elsewhere",
        "its name is a folder's",
        "../../a",
        "alpha = 1.0",
        "method.0",
    ),
    own("a method's unknown setting", "a slip", "mine", "alfa = 1.0", "Did you mean 'alpha'"),
    own("a method's setting NaN", "0 / 0", "mine", "alpha = nan", "'alpha'"),
    own("a method that decides the seed", "the study does", "mine", "seed = 7", "seed"),
    own("a method that names the run", "the study does", "mine", 'run-name = "x"', "run-name"),
)
