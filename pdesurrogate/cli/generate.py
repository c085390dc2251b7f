"""``pdesurrogate generate``: a data set from a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate generate",
        description="Simulate the data set that a recipe describes. Run again, it continues where it stopped: "
        "simulations leave a restart at the first frame after each minute, less often where one takes over three "
        "seconds to write. A simulator that is looked at leaves a log as CSV beside each file.",
    )
    parser.add_argument("recipe", help="recipe file, or the name of one of ours (see: pdesurrogate datasets list)")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory for train.nc, val.nc, test.nc")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="split the work into N shards")
    parser.add_argument("--shard", type=int, default=0, metavar="I", help="make shard I, counted from 0")
    parser.add_argument(
        "--skip-bad-cases",
        action="store_true",
        help="leave out cases that the simulator refuses, in place of an error before the run",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    return parser


def main(argv: list[str]) -> int:
    """Run the verb; the exit status."""
    arguments = build_parser().parse_args(argv)

    from pdesurrogate.cli.terminal import choose_device, progress_bar
    from pdesurrogate.simulators.recipe import generate, load_recipe

    recipe, plain = load_recipe(_recipe_path(arguments.recipe))
    device = choose_device(arguments.device)
    with progress_bar(f"simulating {recipe.name}", unit="frames") as progress:
        files = generate(
            recipe,
            plain,
            arguments.out,
            shards=arguments.shards,
            shard=arguments.shard,
            device=device,
            progress=progress,
            watch=progress.say,
            refused_cases="drop" if arguments.skip_bad_cases else "raise",
        )
    for file in files:
        print(file)
    for line in _dropped(files):
        print(line)
    return 0


def _dropped(files: Sequence[Path]) -> Iterator[str]:
    """A line for each case that was dropped."""
    from pdesurrogate.data.archive import Archive

    for file in files:
        archive = Archive(file)
        for split in archive.splits:
            cases = archive.cases(split)
            for number, reason in archive.dropped(split).items():
                name = f"{cases[number].name} ({cases[number].subset})" if number in cases else f"trajectory {number}"
                yield f"dropped from {file.name}: {name}, number {number}: {reason}"


def _recipe_path(given: str) -> Path:
    """A file as given, else the recipe of the data set of that name."""
    path = Path(given)
    if path.suffix or path.is_file():
        return path
    from pdesurrogate.data.catalog import recipe_path

    return recipe_path(given)
