"""The command ``chunkdl survey``: a table and a page of all slides of a dataset."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from chunkdl.commands.argument_types import channels, count, detector, seconds
from chunkdl.commands.setting_flags import add_flag
from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.slides.address import parse_address
from chunkdl.slides.suffixes import SLIDE_SUFFIXES
from chunkdl.survey.survey import MOST_PROCESSES, SETTINGS, SLIDE_TIMEOUT_S, Survey
from chunkdl.system.printing import printable

TABLE, PAGE = "survey.csv", "survey.html"
EXIT_OK, EXIT_PROBLEMS = 0, 1
Commands = argparse._SubParsersAction
"""What `add_subparsers` returns; argparse gives it no public name."""


def add_survey(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to those of the program."""
    plain = Arguments()
    survey = commands.add_parser(
        "survey",
        help="look at all slides of a dataset: what is in them, what is wrong with them",
        description=(
            f"Looks at every slide and writes a table ({TABLE}) and a page with pictures ({PAGE}). "
            "What was found is kept: a second survey looks only at what has changed or has failed."
        ),
        epilog=(
            "exit status:\n  0    no slide has a problem\n  1    some have, see the table\n"
            "  2    the dataset or a setting is wrong\n  130  interrupted; what was found is kept\n"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    survey.add_argument(
        "dataset",
        nargs="+",
        type=Path,
        metavar="DATASET",
        help="a folder, slide files, or one manifest (CSV, TSV, Parquet)",
    )
    survey.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder that the paths of a manifest are relative to (default: that of the manifest)",
    )
    survey.add_argument(
        "--out",
        type=Path,
        default=Path("survey-out"),
        metavar="DIR",
        help="folder of the table and the page (default: %(default)s)",
    )
    survey.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help=f"slides that are looked at together (default: one a core, at most {MOST_PROCESSES})",
    )
    survey.add_argument(
        "--slide-timeout",
        type=seconds,
        default=SLIDE_TIMEOUT_S,
        metavar="S",
        help="seconds for one slide; then its process is ended (default: %(default)g)",
    )
    survey.add_argument("--quiet", action="store_true", help="write no progress to stderr")
    for name in ("smallchunk_size", "tissue_threshold", "max_relative_deviation"):
        add_flag(survey, name, default=getattr(plain, name))
    add_flag(survey, "tissue", default=plain.tissue, type=detector, metavar="NAME")
    for name, metavar in (("pixel_filter", "NAME"), ("annotations", "DIR"), ("mask_cache", "DIR")):
        add_flag(survey, name, metavar=metavar)
    wish = survey.add_mutually_exclusive_group()
    add_flag(wish, "level")
    for name in ("mpp", "downsample"):
        add_flag(wish, name, type=float, metavar="X")
    add_flag(wish, "magnification", metavar="20x")
    add_flag(survey, "resolution_policy")
    add_flag(survey, "reader", default=plain.reader)
    add_flag(survey, "channels", type=channels, metavar="R,G,B")
    add_flag(survey, "window", type=float, nargs=2, metavar=("LOW", "HIGH"))
    add_flag(survey, "icc")
    survey.set_defaults(run=_survey)


def _survey(given: argparse.Namespace) -> int:
    settings = {name: getattr(given, name) for name in SETTINGS if hasattr(given, name)}
    if given.window is not None:
        settings["window"] = tuple(given.window)
    survey = dataset_at(given.dataset, given.root).survey(
        processes=given.processes,
        slide_timeout=given.slide_timeout,
        progress=not given.quiet,
        **settings,
    )
    given.out.mkdir(parents=True, exist_ok=True)
    survey.write_csv(given.out / TABLE)
    survey.write_html(given.out / PAGE)
    for line in summary(survey):
        print(line)
    print(printable(f"{given.out / TABLE}\n{given.out / PAGE}"))
    return EXIT_PROBLEMS if survey.with_problems else EXIT_OK


def dataset_at(paths: list[Path], root: Path | None) -> Dataset:
    """The dataset that paths of the command line mean: one manifest, or slides and folders.

    Raises:
        DatasetError: it cannot be used.
    """
    if len(paths) == 1 and (root is not None or _is_manifest(paths[0])):
        return Dataset.from_table(paths[0], root=root)
    return Dataset.from_slides(paths)


def _is_manifest(path: Path) -> bool:
    name = parse_address(path).path
    return os.path.isfile(name) and not name.lower().endswith(SLIDE_SUFFIXES)


def summary(survey: Survey) -> list[str]:
    """What was found, in a few lines."""
    total, looked, bad = len(survey.slides), survey.looked_at, len(survey.with_problems)
    lines = [f"{total:,} slides ({looked:,} looked at now), {bad:,} with problems"]
    kinds = Counter(
        kind
        for slide in survey.with_problems
        for kind in {problem.kind for problem in slide.problems}
    )
    return lines + [f"  {kind}: {number:,}" for kind, number in kinds.most_common()]
