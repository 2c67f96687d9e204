"""The command line: demo, inspect, survey, version, and the commands of the service."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from chunkdl import __version__
from chunkdl.commands.argument_types import (
    channels,
    count,
    detector,
    picture,
    seconds,
    weights,
)
from chunkdl.commands.inspect_slides import Look, inspect_slide
from chunkdl.commands.refused_places import Audit
from chunkdl.commands.service import add_service_commands
from chunkdl.commands.setting_flags import add_flag
from chunkdl.commands.survey import add_survey
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import AnnotationError, ChunkdlError, ConfigError, SlideError
from chunkdl.slides.readers.dicom_series import dicom_files_in
from chunkdl.slides.readers.registry import read_structure
from chunkdl.slides.structure import text_of
from chunkdl.system.printing import printable

EXIT_OK, EXIT_DIFFERENT, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: without the program's name; None: those of this process.

    Returns:
        The exit status: 0; 1 where the demo's resumed batches differ, or a survey has found
        problems; 2 after an error, which is told in one line on stderr; 130 after Ctrl-C.
    """
    given = _parser().parse_args(arguments)
    try:
        status: int = given.run(given)
    except ChunkdlError as error:
        _complain(error)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def _complain(error: ChunkdlError) -> None:
    print(f"chunkdl: error: {' '.join(str(error).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chunkdl", description="Streams patches of whole-slide images into GPU training."
    )
    parser.add_argument("--version", action="version", version=f"chunkdl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_inspect(commands)
    add_survey(commands)
    add_service_commands(commands, seconds)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


Commands = argparse._SubParsersAction
"""What `add_subparsers` returns; argparse gives it no public name."""


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="stream batches and show what happens",
        description="Streams batches from synthetic slides, or from yours, and shows the "
        "processes, the throughput, an exact resume and a picture of one batch.",
    )
    demo.add_argument(
        "--slides",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="slide files or folders of them (default: synthetic slides in demo-slides/, made on "
        "first use)",
    )
    demo.add_argument("--batches", type=count, help="stop after this number of batches")
    demo.add_argument(
        "--seconds",
        type=seconds,
        default=3.0,
        help="stop after this many seconds (default: %(default)g)",
    )
    demo.add_argument(
        "--out",
        type=picture,
        default=Path("demo-slides", "contact-sheet.png"),
        metavar="FILE",
        help="file of the picture (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)


def _add_inspect(commands: Commands[argparse.ArgumentParser]) -> None:
    look = Look()
    inspect = commands.add_parser(
        "inspect",
        help="draw where slides would be sampled",
        description="Draws one picture per slide: its tissue mask, and the first windows and "
        "positions of a stream over this slide alone.",
    )
    inspect.add_argument("slides", nargs="+", type=Path, metavar="SLIDE", help="file or folder")
    inspect.add_argument(
        "--out",
        type=Path,
        default=Path("inspect-out"),
        metavar="DIR",
        help="folder of the pictures (default: %(default)s)",
    )
    for name in ("smallchunk_size", "bigchunk_size", "tissue_threshold"):
        add_flag(inspect, name, default=getattr(look, name))
    add_flag(inspect, "tissue", default=look.tissue, type=detector, metavar="NAME")
    add_flag(inspect, "pixel_filter", metavar="NAME")
    add_flag(inspect, "annotations", metavar="DIR")
    add_flag(inspect, "roi", default=look.roi, metavar="WHERE")
    add_flag(inspect, "regions", type=weights, metavar="CLASS=WEIGHT,…")
    wish = inspect.add_mutually_exclusive_group()
    add_flag(wish, "level")
    for name in ("mpp", "downsample"):
        add_flag(wish, name, type=float, metavar="X")
    add_flag(wish, "magnification", metavar="20x")
    add_flag(inspect, "channels", type=channels, metavar="R,G,B")
    add_flag(inspect, "window", type=float, nargs=2, metavar=("LOW", "HIGH"))
    add_flag(inspect, "icc")
    inspect.add_argument(
        "--structure",
        action="store_true",
        help="instead, print the structure of the files: every image, its role and why",
    )
    inspect.add_argument(
        "--audit",
        action="store_true",
        help="print how many places each rule takes away, of each slide and of all",
    )
    inspect.add_argument(
        "--windows", type=count, default=look.windows, help="how many (default: %(default)s)"
    )
    inspect.add_argument(
        "--positions",
        type=count,
        help="positions per window (default: as many as give a reuse of 1)",
    )
    add_flag(inspect, "seed", default=look.seed)
    inspect.set_defaults(run=_inspect)


def _version(given: argparse.Namespace) -> int:
    del given
    print(f"chunkdl {__version__}")
    return EXIT_OK


def _demo(given: argparse.Namespace) -> int:
    # Imported here: the other commands work without torch.
    try:
        from chunkdl.commands.demo import Tour, give_tour
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "the demo needs PyTorch, which is not installed: pip install 'chunkdl[torch]'"
        ) from error
    tour = Tour(given.slides, given.batches, given.seconds, given.out)
    same = give_tour(tour, lambda line: print(line, flush=True))
    return EXIT_OK if same else EXIT_DIFFERENT


def _inspect(given: argparse.Namespace) -> int:
    fields = ("smallchunk_size", "bigchunk_size", "mpp", "level", "downsample", "magnification")
    more = ("tissue", "tissue_threshold", "pixel_filter", "annotations", "roi", "regions")
    other = ("windows", "positions", "seed", "channels", "icc")
    if given.structure:
        return _structures(given.slides)
    window = None if given.window is None else tuple(given.window)
    look = Look(window=window, **{name: getattr(given, name) for name in (*fields, *more, *other)})
    dataset = Dataset.from_slides(given.slides)
    status, whole = EXIT_OK, Audit()
    for patient, drawn in zip(dataset, _pictures(dataset, given.out), strict=True):
        problem: ChunkdlError | None
        try:
            found = inspect_slide(patient, look, drawn)
            problem, whole = found.problem, whole + found.audit
            print(printable(str(drawn)))
            if given.audit:
                print(f"  {found.audit}")
        except (SlideError, AnnotationError) as error:
            # The other slides may be fine, and the user wants to see them.
            problem = error
        except ConfigError as error:
            if look.annotations is None:
                raise
            # One slide may have no annotations, and another may.
            problem = error
        if problem is not None:
            _complain(problem)
            status = EXIT_ERROR
    if given.audit and len(dataset) > 1:
        print(f"all slides\n  {whole}")
    return status


def _structures(paths: Sequence[Path]) -> int:
    """Print what is in each file, or in each slide of a folder."""
    status = EXIT_OK
    for path in paths:
        for slide in _files_at(path):
            try:
                print(printable(text_of(read_structure(slide))))
            except SlideError as error:
                _complain(error)
                status = EXIT_ERROR
    return status


def _files_at(path: Path) -> list[str]:
    """The path itself, or the slides in a folder that is none."""
    if not path.is_dir() or dicom_files_in(os.fspath(path)):
        return [str(path)]
    return [patient.slides[0].path for patient in Dataset.from_slides(path)]


def _pictures(dataset: Dataset, folder: Path) -> list[Path]:
    """A file for each slide, named after it; slides of one name are told apart by a number."""
    names = [patient.name.replace("/", "_") for patient in dataset]
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        for name, number in zip(names, numbers, strict=True)
    ]
