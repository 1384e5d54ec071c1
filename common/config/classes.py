"""Classes under the names that sites have for them: 'their-name=class', separated by commas.

Of 'their-name=' nothing takes part.
"""

import unicodedata
from collections.abc import Mapping, Sequence

LEFT_OUT = ""
"""In place of a class: images of that folder, or label, take no part."""


def parse_classes_map(text: str) -> dict[str, str]:
    """Read the key ``classes-map``: a site's name → class, or :data:`LEFT_OUT`, in its order.

    Raises
    ------
    ValueError
        If a part is no 'their-name=class' or 'their-name=', or a name is given two classes.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        theirs, equals, label = (piece.strip() for piece in part.partition("="))
        if not (theirs and equals):
            raise ValueError(
                f"classes-map holds '{part}', which is not their-name=class, nor their-name= to "
                "leave it out"
            )
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

    :data:`LEFT_OUT` is returned for a name that the map leaves out.
    A name counts as it is written, else without regard to case and blanks among those of the map.
    """
    if name in classes:
        return name
    if name in classes_map:
        return classes_map[name]
    alike = (label for theirs, label in classes_map.items() if loosely(theirs) == loosely(name))
    return next(alike, None)


def which_key(name: str, classes: Sequence[str]) -> str:
    """Return the key that takes in, or leaves out, what bears another name than a class."""
    alike = next((label for label in classes if loosely(label) == loosely(name)), None)
    if alike is not None:
        return f"classes-map = '{name}={alike}'"
    return "classes or classes-map" + (f" ('{name}=' leaves it out)" if name else "")
