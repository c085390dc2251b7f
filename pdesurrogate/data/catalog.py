"""Cards, recipes and training configurations that travel with the package.

Inside a wheel they lie under ``pdesurrogate/_resources``; an editable installation finds them in the checkout, under
``datasets/`` and ``benchmarks/configs/``. A card is ``datasets/NAME/README.md`` with ``name``, ``title``, ``kind`` and
``size`` as YAML between two lines of dashes at its top.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KINDS = ("generated", "published")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Card:
    """Description of one data set.

    Attributes:
        name: folder of the card, and name of the recipe.
        title: one line.
        kind: ``generated`` from our recipe, or ``published`` by others.
        size: on disk, in words.
        text: the card itself, Markdown, without its front matter.
        path: of the card.
    """

    name: str
    title: str
    kind: str
    size: str
    text: str
    path: Path

    @property
    def recipe(self) -> Path | None:
        """The recipe beside the card; ``None`` for published sets."""
        path = self.path.with_name("recipe.yaml")
        return path if path.is_file() else None


def datasets_directory(package: Path = _PACKAGE) -> Path:
    """Folder of the cards and recipes; ``package`` is the folder of the installed package.

    Raises:
        ValueError: if it is neither in the package nor beside it.
    """
    return _locate(package, "datasets", "datasets")


def configs_directory(package: Path = _PACKAGE) -> Path:
    """Folder of the training configurations, ``PROBLEM/MODEL.yaml``; ``package`` is the folder of the package.

    Raises:
        ValueError: if it is neither in the package nor beside it.
    """
    return _locate(package, "configs", "benchmarks/configs")


def cards(directory: Path | None = None) -> list[Card]:
    """All cards, by name.

    Raises:
        ValueError: if a card's front matter is incomplete.
    """
    directory = datasets_directory() if directory is None else directory
    return [read_card(path) for path in sorted(directory.glob("*/README.md"))]


def card(name: str, directory: Path | None = None) -> Card:
    """The card called ``name``.

    Raises:
        ValueError: if there is none, listing names that are close.
    """
    known = {entry.name: entry for entry in cards(directory)}
    if name not in known:
        raise ValueError(unknown_name("data set", name, known))
    return known[name]


def recipe_path(name: str, directory: Path | None = None) -> Path:
    """File of the recipe called ``name``.

    Raises:
        ValueError: if there is none, listing names that are close, or saying that others published that set.
    """
    directory = datasets_directory() if directory is None else directory
    path = directory / name / "recipe.yaml"
    if not path.is_file():
        described = path.with_name("README.md")
        if described.is_file() and read_card(described).kind == "published":
            raise ValueError(
                f"Expected a data set with a recipe but {name!r} was published by others; "
                f"`pdesurrogate datasets show {name}` says how to get it."
            )
        raise ValueError(unknown_name("recipe", name, [found.parent.name for found in directory.glob("*/recipe.yaml")]))
    return path


def config_path(name: str, directory: Path | None = None) -> Path:
    """File of the training configuration ``PROBLEM/MODEL``.

    Raises:
        ValueError: if there is none, listing names that are close.
    """
    directory = configs_directory() if directory is None else directory
    path = directory / f"{name}.yaml"
    if not path.is_file():
        known = [found.relative_to(directory).with_suffix("").as_posix() for found in directory.rglob("*.yaml")]
        raise ValueError(unknown_name("configuration", name, known))
    return path


def read_card(path: Path) -> Card:
    """Parse one card.

    Raises:
        ValueError: if the front matter is missing, incomplete or names another folder.
    """
    import yaml

    parts = path.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    keys = ("name", "title", "kind", "size")
    if not isinstance(fields, dict) or set(fields) != set(keys):
        raise ValueError(f"Expected {keys} as YAML between two lines `---` at the top of {path} but got {fields}.")
    if fields["name"] != path.parent.name or fields["kind"] not in KINDS:
        raise ValueError(
            f"Expected name {path.parent.name!r} and a kind among {KINDS} in {path} "
            f"but got {fields['name']!r} and {fields['kind']!r}."
        )
    return Card(**{key: str(fields[key]) for key in keys}, text=parts[2].strip() + "\n", path=path)


def unknown_name(what: str, name: str, known: Iterable[str], *, listed: Iterable[str] | None = None) -> str:
    """Message for a name that is none.

    Args:
        what: that it should be a name of, in words.
        name: that was given.
        known: all right names.
        listed: those that are shown where none is close; all by default.

    Example:
        >>> unknown_name("data set", "cfdbnch", ["cfdbench", "gpme"])
        "Expected the name of a data set but got 'cfdbnch'. Did you mean cfdbench?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    shown = ", ".join(sorted(known if listed is None else listed)) or "none"
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {shown}."
    return f"Expected the name of a {what} but got {name!r}. {hint}"


def _locate(package: Path, resource: str, checkout: str) -> Path:
    inside, beside = package / "_resources" / resource, package.parent / checkout
    for directory in (inside, beside):
        if directory.is_dir():
            return directory
    raise ValueError(f"Expected {inside} or {beside} but neither exists; reinstall the package, or work in a checkout.")
