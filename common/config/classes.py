"""Classes under the names that sites have for them: 'their-name=class', separated by commas."""

import unicodedata
from collections.abc import Mapping, Sequence


def parse_classes_map(text: str) -> dict[str, str]:
    """Read the key ``classes-map``: a site's name → class, in its order.

    Raises
    ------
    ValueError
        If a part is no 'their-name=class', or a name is given two classes.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        theirs, equals, label = (piece.strip() for piece in part.partition("="))
        if not (theirs and equals and label):
            raise ValueError(f"classes-map holds '{part}', which is not their-name=class")
        for other, meant in found.items():
            if loosely(other) == loosely(theirs) and meant != label:
                raise ValueError(
                    f"classes-map gives '{theirs}' two classes, '{meant}' and '{label}'"
                )
        found[theirs] = label
    return found


def loosely(name: str) -> str:
    """Return a name without what distinguishes nothing: case, and blanks of any kind."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def class_of(name: str, classes: Sequence[str], classes_map: Mapping[str, str]) -> str | None:
    """Return the class that a folder, or a label, names; None where it names none.

    A name counts as it is written, else without regard to case and blanks among those of the map.
    """
    if name in classes:
        return name
    if name in classes_map:
        return classes_map[name]
    alike = (label for theirs, label in classes_map.items() if loosely(theirs) == loosely(name))
    return next(alike, None)
