"""Objects that a YAML file, or an import path, describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

YAML_SUFFIXES = (".yaml", ".yml")


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ValueError: if it is not there or is no YAML.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"Expected a YAML file but {path} does not exist.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected YAML in {path}: {error}") from error


def instance_of(kind: Any, value: Any, refusal: str) -> tuple[Any, Any]:
    """What a class path, or class_path and init_args, describe, if it is of a kind; and all that in plain values.

    Raises:
        ValueError: beginning with ``refusal``, if it is not, or an argument is misspelt or of another type.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--described", type=kind)
    try:
        config = parser.parse_object({"described": value})
        instance = parser.instantiate(config).described
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{refusal}: {' '.join(str(error).split())}") from error
    return instance, yaml.safe_load(parser.dump(config))["described"]
