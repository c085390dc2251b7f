"""``pdesurrogate VERB``: looks at the verb first and imports only what that verb needs."""

from __future__ import annotations

import importlib
import os
import sys

_VERBS = {
    "demo": "the whole chain on a small problem: simulate, train, roll out, measure, draw (minutes)",
    "generate": "simulate a data set from a recipe",
    "fit": "train a network (LightningCLI)",
    "validate": "rollout error on the validation split",
    "test": "rollout error on the test split",
    "predict": "roll out every test trajectory into an archive, predictions/ below --trainer.default_root_dir",
    "evaluate": "roll out and measure a checkpoint, a solver or a baseline: report and figures",
    "refine": "make a checkpoint's predictions obey the equation, beside the plain solver: report and figures",
    "leaderboard": "compare reports: tables and a page",
    "datasets": "list, show, download, describe and convert data sets",
    "new": "a network, data set or metric of your own: a tested skeleton in your own folder",
    "doctor": "versions, devices, what is missing",
}
_AFTER_INTERRUPT = {
    "demo": "the same command continues",
    "generate": "the same command continues",
    "fit": "continue from the last whole epoch with --ckpt_path .../checkpoints/last.ckpt",
}
_TRAINING = ("fit", "validate", "test", "predict")


def _usage() -> str:
    rows = "\n".join(f"  {verb:<12} {text}" for verb, text in _VERBS.items())
    return (
        "usage: pdesurrogate VERB [options]\n\nNeural-operator surrogates for PDEs: "
        f"data, training, rollout, measurement, comparison.\n\nverbs:\n{rows}\n\n"
        "`pdesurrogate VERB --help` explains a verb; `pdesurrogate --version` gives the version."
    )


def _look_in_current_folder() -> None:
    """Class paths reach modules there, as with ``python -m``, but behind everything installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def _cure(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return ". Check that the path is right, writable, and has space left"
    if "No module named" in str(error):
        return (
            f"\nclass paths are looked for in installed packages and in {os.getcwd()}; run the command in the folder "
            "that holds the module, or set PYTHONPATH to it."
        )
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; the exit status: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("pdesurrogate"))
        return 0
    verb = arguments[0]
    if verb not in _VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, _VERBS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"pdesurrogate: there is no verb {verb!r}{hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        _look_in_current_folder()
        module = importlib.import_module(f"pdesurrogate.cli.{'train' if verb in _TRAINING else verb}")
        # LightningCLI reads the verb itself, and relaunched DDP processes read sys.argv.
        return int(module.main(arguments if verb in _TRAINING else arguments[1:]))
    except (ValueError, OSError) as error:
        print(f"pdesurrogate {verb}: {error}{_cure(error)}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit of its own.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        hint = _AFTER_INTERRUPT.get(verb, "nothing half-done is taken for whole")
        print(f"\npdesurrogate {verb}: interrupted; {hint}.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
