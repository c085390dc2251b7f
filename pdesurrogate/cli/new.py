"""``pdesurrogate new``: a network, data set or metric of one's own, as a tested skeleton outside this package."""

from __future__ import annotations

import argparse
import builtins
import importlib.util
import io
import keyword
import os
import re
import shlex
import sys
import tempfile
import tokenize
from pathlib import Path

KINDS = {
    "model": "a network, with a configuration that trains it",
    "dataset": "a reader of .npy files, with a card and configurations that evaluate and train on it",
    "metric": "a pure function and a streaming metric around it, with the YAML that adds it to an evaluation",
}
_TEMPLATES = Path(__file__).with_name("templates")
_SUFFIXES = (".py", ".yaml", ".md")


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate new",
        description="Write a small package NAME that works as it stands, with tests, a README and YAML that uses it by "
        "class path. Change it to what you want; nothing in pdesurrogate needs to be touched.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, text in KINDS.items():
        making = kinds.add_parser(kind, help=text, description=f"Write {text}.")
        making.add_argument("name", metavar="NAME", help="of the package, in small letters and underscores: my_net")
        making.add_argument(
            "--out",
            type=Path,
            default=Path(),
            metavar="DIR",
            help="folder to put the package in, in which the commands are then run; default: the current one",
        )
    return parser


def main(argv: list[str]) -> int:
    """Run the verb; the exit status."""
    arguments = build_parser().parse_args(argv)
    for file in write_skeleton(arguments.kind, arguments.name, arguments.out):
        print(file)
    print("\nnext:")
    if arguments.out.resolve() != Path.cwd():
        print(f"cd {shlex.quote(str(arguments.out))}")
    print(_commands((arguments.out / arguments.name / "README.md").read_text(encoding="utf-8")))
    return 0


def write_skeleton(kind: str, name: str, out: Path) -> list[Path]:
    """Write the package ``out/name`` whole or not at all; its files.

    Args:
        kind: among `KINDS`.
        name: of the package and, written in other ways, of what is in it: `my_net` has the class ``MyNet``.
        out: folder to put it in; made where it is not there.

    Raises:
        ValueError: if the name cannot be a module's, is taken, or would hide something that the skeleton uses, or there
            is something of that name in the folder.
    """
    _check_spelling(name)
    target = out / name
    if os.path.lexists(target):
        raise ValueError(
            f"Expected a new folder but {target} is there; choose another name, or another folder with --out."
        )
    _check_free(kind, name)
    files = {
        _renamed(path.relative_to(_TEMPLATES / kind).as_posix(), kind, name): _renamed(
            path.read_text(encoding="utf-8"), kind, name
        )
        for path in _template_files(kind)
    }
    out.mkdir(parents=True, exist_ok=True)
    # Renamed when whole: nothing half-done is taken for a package.
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out) as staging:
        made = Path(staging, name)
        made.mkdir()
        for file, text in files.items():
            (made / file).write_text(text, encoding="utf-8", newline="\n")
        made.rename(target)
    return [target / file for file in files]


def class_name(kind: str, name: str) -> str:
    """Class of a skeleton.

    Example:
        >>> class_name("model", "my_net"), class_name("metric", "enstrophy_error")
        ('MyNet', 'EnstrophyErrorMetric')
    """
    camel = "".join(word.capitalize() for word in name.split("_"))
    return camel if kind != "metric" or camel.endswith("Metric") else f"{camel}Metric"


def _check_spelling(name: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not keyword.iskeyword(name):
        return
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    close = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_").lstrip("_0123456789")
    if not close or keyword.iskeyword(close):
        close = f"my_{close or 'net'}"
    raise ValueError(
        f"Expected the name of a Python module, in small letters, digits and underscores, but got {name!r}; "
        f"{close!r} is one."
    )


def _check_free(kind: str, name: str) -> None:
    """Refuse what Python would not find behind a module of that name, and what the skeleton itself uses."""
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise ValueError(
            f"Expected a name that no module has but {name!r} can be imported already; choose another, such as "
            f"{f'{name}_{kind}'!r}."
        )
    used = {token for path in _template_files(kind) if path.suffix == ".py" for token in _identifiers(path)}
    hidden = [each for each in (name, class_name(kind, name)) if each in used or hasattr(builtins, each)]
    if hidden:
        raise ValueError(
            f"Expected a name that the skeleton and Python do not use themselves but {hidden[0]!r} is one; choose "
            f"another, such as {f'{name}_{kind}'!r}."
        )


def _template_files(kind: str) -> list[Path]:
    return sorted(path for path in (_TEMPLATES / kind).iterdir() if path.suffix in _SUFFIXES)


def _identifiers(path: Path) -> set[str]:
    source = io.StringIO(path.read_text(encoding="utf-8"))
    return {token.string for token in tokenize.generate_tokens(source.readline) if token.type == tokenize.NAME}


def _renamed(text: str, kind: str, name: str) -> str:
    """A template's text with the names of the copy: of package, class, and what else is called after it."""
    copied = {
        f"{__package__}.templates.{kind}": name,
        f"Template{kind.capitalize()}": class_name(kind, name),
        f"template_{kind}": name,
    }
    # In one pass, since a new name may contain an old one.
    return re.sub("|".join(map(re.escape, copied)), lambda found: copied[found[0]], text)


def _commands(readme: str) -> str:
    """What stands between the first two fences."""
    return readme.split("```sh\n", 1)[1].split("```", 1)[0].rstrip()
