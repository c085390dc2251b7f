"""``pdesurrogate generate``: a data set from a recipe."""

from __future__ import annotations

import argparse
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
        )
    for file in files:
        print(file)
    return 0


def _recipe_path(given: str) -> Path:
    """A file as given, else the recipe of the data set of that name."""
    path = Path(given)
    if path.suffix or path.is_file():
        return path
    from pdesurrogate.data.catalog import recipe_path

    return recipe_path(given)
