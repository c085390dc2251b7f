"""``pdesurrogate datasets convert`` and ``export``: other people's files to archives, and archives to such files."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdesurrogate.cli.described import instance_of

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.base import Adapter

FORMATS = {
    "channel-numpy": "pdesurrogate.data.adapters.channel_numpy.ChannelNumpy",
    "fno-mat": "pdesurrogate.data.adapters.fno_mat.FnoMat",
    "torch-cfd": "pdesurrogate.data.adapters.torch_cfd.TorchCfd",
    "cfdbench": "pdesurrogate.data.adapters.cfdbench.adapter.CfdBench",
    "pdearena-navier-stokes": "pdesurrogate.data.adapters.pdearena.navier_stokes.PdeArenaNavierStokes",
    "pdearena-shallow-water": "pdesurrogate.data.adapters.pdearena.shallow_water.PdeArenaShallowWater",
    "sinenet-compressible": "pdesurrogate.data.adapters.sinenet_compressible.SineNetCompressible",
    "pdebench-compressible": "pdesurrogate.data.adapters.pdebench.compressible.PdeBenchCompressible",
    "pdebench-incompressible": "pdesurrogate.data.adapters.pdebench.incompressible.PdeBenchIncompressible",
    "pdebench-groups": "pdesurrogate.data.adapters.pdebench.groups.PdeBenchGroups",
    "pdebench-1d": "pdesurrogate.data.adapters.pdebench.one_dimensional.PdeBench1d",
    "the-well": "pdesurrogate.data.adapters.the_well.adapter.TheWell",
    "jhtdb": "pdesurrogate.data.adapters.jhtdb.JhtdbCutout",
    "mapped": "pdesurrogate.data.adapters.mapped.adapter.MappedFiles",
}
_FLAGS = (
    "viscosity",
    "length",
    "frame_interval",
    "start_time",
    "field",
    "train",
    "val",
    "test",
    "initial_frame",
    "problem",
    "subsets",
    "interval",
    "stored_interval",
    "mask",
    "cells",
    "skip_bad_cases",
)


def add_convert(verbs: Any) -> None:
    """Add the verb ``convert``."""
    converting = verbs.add_parser(
        "convert",
        help="a published file to our archive layout",
        description="Convert a published file to archives, one for each split. Run again, it continues.",
        argument_default=argparse.SUPPRESS,
    )
    converting.add_argument("source", metavar="SOURCE", help="the file, or the folder of a tree or of shards")
    converting.add_argument(
        "--format", required=True, help=f"{', '.join(FORMATS)}, or the class path of an adapter that takes a path"
    )
    converting.add_argument("--out", required=True, metavar="DIR", help="directory of the archive")
    options = converting.add_argument_group("what the file does not say", "defaults are those of the adapter")
    options.add_argument("--viscosity", type=float, help="kinematic; stored with every trajectory")
    options.add_argument("--length", type=float, help="side of the periodic box")
    options.add_argument("--frame-interval", type=float, help="time between frames")
    options.add_argument("--start-time", type=float, help="time of the first frame")
    options.add_argument("--field", help="the field to take, where a file holds several")
    options.add_argument("--train", type=int, metavar="N", help="trajectories at the start of the file")
    options.add_argument("--val", type=int, metavar="N", help="trajectories cut from the end of those")
    options.add_argument("--test", type=int, metavar="N", help="trajectories at the end of the file")
    options.add_argument("--initial-frame", action="store_true", help="put the initial condition before the frames")
    trees = converting.add_argument_group("of a tree of cases", "defaults are those of the adapter")
    trees.add_argument("--problem", help="cavity, tube, dam, step or cylinder")
    trees.add_argument("--subsets", nargs="+", metavar="NAME", help="among bc, prop and geo")
    trees.add_argument("--interval", type=float, help="time between frames, a multiple of that of stored ones")
    trees.add_argument("--stored-interval", type=float, help="time between stored frames")
    trees.add_argument("--mask", help="physical, reference or none")
    trees.add_argument("--cells", type=int, nargs=2, metavar=("X", "Y"), help="of every frame")
    trees.add_argument("--skip-bad-cases", action="store_true", help="go on without cases that cannot be read")
    converting.add_argument(
        "--set",
        type=_setting,
        action="append",
        metavar="NAME=VALUE",
        help="any further option of the adapter, its value in YAML; may be repeated",
    )
    converting.set_defaults(verb=_convert)


def add_export(verbs: Any) -> None:
    """Add the verb ``export``."""
    exporting = verbs.add_parser(
        "export",
        help="an archive to files that others read",
        description="Write an archive in a published layout. cfdbench: the cases as u.npy, v.npy and case.json in "
        "PROBLEM/SUBSET/caseNNNN, as CFDBench's loaders read them. the-well: every split as "
        "data/{train,valid,test}/NAME.hdf5 with stats.yaml, as The Well's reader opens them. Run again, it writes them "
        "again.",
        argument_default=argparse.SUPPRESS,
    )
    exporting.add_argument("archive", metavar="ARCHIVE", help="directory of an archive")
    exporting.add_argument("--format", required=True, choices=tuple(_EXPORTS), help="the layout")
    exporting.add_argument("--out", required=True, metavar="DIR", help="where it goes; made where needed")
    tree = exporting.add_argument_group("of cfdbench")
    tree.add_argument("--problem", help="cavity, tube, step or cylinder; its folder is made in DIR")
    well = exporting.add_argument_group("of the-well")
    well.add_argument(
        "--boundary",
        type=_boundary,
        action="append",
        metavar="AXIS=KIND",
        help="what is at both ends of an axis that is not periodic, wall or open, or LOW,HIGH where they differ; may "
        "be repeated",
    )
    well.add_argument(
        "--staggered",
        choices=("refuse", "centers"),
        help="what becomes of values on faces, for which the layout has no place (default: refuse)",
    )
    exporting.set_defaults(verb=_export)


def _convert(arguments: argparse.Namespace) -> int:
    from pdesurrogate.data.adapters.base import Adapter

    class_path = FORMATS.get(arguments.format, arguments.format)
    options = {name: getattr(arguments, name) for name in _FLAGS if name in arguments}
    options |= dict(getattr(arguments, "set", ()))
    source = _require_fitting(_load_class(class_path), options, arguments.format)
    described = {"class_path": class_path, "init_args": {source: arguments.source, **options}}
    adapter, _ = instance_of(Adapter, described, f"{arguments.source} cannot be read as {arguments.format}")
    for file in _archived(adapter, arguments, class_path, options):
        print(file)
    return 0


def _archived(adapter: Adapter, arguments: argparse.Namespace, class_path: str, options: dict[str, Any]) -> list[Path]:
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.adapters.mapped.adapter import MappedFiles
    from pdesurrogate.data.convert import convert, provenance
    from pdesurrogate.data.subsets import has_cases
    from pdesurrogate.data.tree_conversion import convert_tree

    source = Path(arguments.source)
    with progress_bar(f"converting {adapter.metadata.name}", unit="trajectories") as progress:
        if not has_cases(adapter):
            files = adapter.files if isinstance(adapter, MappedFiles) else ()
            attributes = provenance(source, class_path, options, files)
            return convert(adapter, arguments.out, attributes=attributes, progress=progress)
        own = source / options.get("problem", "")
        return convert_tree(
            adapter,
            arguments.out,
            folder=own if own.is_dir() else source,
            source={"adapter": class_path, "options": options},
            progress=progress,
        )


def _export(arguments: argparse.Namespace) -> int:
    for form, (_, options) in _EXPORTS.items():
        foreign = [f"--{name}" for name in options if name in arguments]
        if foreign and form != arguments.format:
            raise ValueError(f"Expected {', '.join(foreign)} with {form} alone but the format is {arguments.format}.")
    write, _ = _EXPORTS[arguments.format]
    return write(arguments)


def _export_tree(arguments: argparse.Namespace) -> int:
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.cfdbench_tree import write_cfdbench_tree
    from pdesurrogate.data.tree_conversion import CountedReads

    if "problem" not in arguments:
        raise ValueError("Expected --problem with cfdbench: cavity, tube, step or cylinder.")
    archive = Archive(arguments.archive)
    with progress_bar(f"writing cases of {archive.metadata.name}", unit="cases") as progress:
        folders = write_cfdbench_tree(CountedReads(arguments.archive, progress), arguments.out, arguments.problem)
    subsets = [folder.parent.name for folder in folders]
    counts = ", ".join(f"{name} {subsets.count(name)}" for name in dict.fromkeys(subsets))
    dropped = sum(len(archive.dropped(split)) for split in archive.splits)
    without = f"; without {dropped} that were dropped" if dropped else ""
    print(f"{len(folders)} cases ({counts}) in {Path(arguments.out) / arguments.problem}{without}")
    return 0


def _export_well(arguments: argparse.Namespace) -> int:
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.well_writer import write_well

    archive = Archive(arguments.archive)
    told = getattr(arguments, "boundary", [])
    boundaries = dict(told)
    if len(boundaries) < len(told):
        raise ValueError(f"Expected --boundary once for each axis but got {', '.join(axis for axis, _ in told)}.")
    with progress_bar(f"writing {archive.metadata.name}", unit="trajectories") as progress:
        files = write_well(
            archive,
            arguments.out,
            boundaries=boundaries,
            staggered=getattr(arguments, "staggered", "refuse"),
            progress=progress,
        )
    for file in files:
        print(file)
    return 0


# What writes each layout, and its own options.
_EXPORTS: dict[str, tuple[Callable[[argparse.Namespace], int], tuple[str, ...]]] = {
    "cfdbench": (_export_tree, ("problem",)),
    "the-well": (_export_well, ("boundary", "staggered")),
}


def _load_class(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected a format among {', '.join(FORMATS)}, or the class path of an adapter, but got {class_path!r} "
            f"({error})."
        ) from error


def _require_fitting(adapter_class: Any, options: dict[str, Any], form: str) -> str:
    """Refuse options that the adapter lacks, and the lack of those that it needs; the name of what takes the source."""
    source, *others = inspect.signature(adapter_class).parameters.values()
    known = [parameter.name for parameter in others]
    foreign = [name for name in options if name not in known]
    if foreign:
        raise ValueError(
            f"Expected options that {form} has ({', '.join(known) or 'none'}) but got {_flags(foreign)}; leave them "
            "out."
        )
    needed = [
        parameter.name
        for parameter in others
        if parameter.name not in options and parameter.default is inspect.Parameter.empty
    ]
    if needed:
        raise ValueError(f"Expected {_flags(needed)} with {form}: the file does not say.")
    return source.name


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" if name in _FLAGS else f"--set {name}=..." for name in names)


def _boundary(text: str) -> tuple[str, tuple[str, str]]:
    """``AXIS=KIND``, or ``AXIS=LOW,HIGH``."""
    axis, _, stated = text.partition("=")
    low, comma, high = stated.partition(",")
    if not axis or not {low, high if comma else low} <= {"wall", "open"}:
        raise argparse.ArgumentTypeError(f"expected AXIS=wall, AXIS=open or AXIS=wall,open but got {text!r}")
    return axis, (low, high if comma else low)


def _setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with the value in YAML."""
    import yaml

    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE but got {text!r}")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"expected a value in YAML but got {value!r} ({error})") from error
