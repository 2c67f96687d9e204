"""What chunkdl warns of arrives, whatever the training configures of its own logging."""

from __future__ import annotations

import logging
import logging.config
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chunkdl.dataset.patients import Dataset
from chunkdl.system.steady_log import steady_logger
from tests.test_architecture import MODULES, REPOSITORY

PROGRAM = """
import logging, logging.config, sys
from chunkdl import Dataset, LightDL
loader = LightDL(Dataset.from_slides(sys.argv[1:]), tissue="none", batch_size=4, smallchunk_size=64,
                 bigchunk_size=512, num_loaders=1, num_collectors=1, seed=1, tfms=None)
handlers = {"there": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}
own = {"version": 1, "handlers": handlers, "root": {"handlers": ["there"], "level": "INFO"}}
if BEFORE:
    logging.config.dictConfig(own)
loader.next_batch(60)
if not BEFORE:
    logging.config.dictConfig(own)
import psutil
for process in psutil.Process().children(recursive=True):
    if "chunkdl_workers.collector" in process.cmdline():
        process.kill()
for _ in range(40):
    loader.next_batch(60)
loader.close()
"""


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """The logging of the test run comes back after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for name in list(logging.Logger.manager.loggerDict):
        logging.getLogger(name).disabled = False


@pytest.mark.parametrize("name", ["chunkdl", "chunkdl.user", "chunkdl.slides.readers.registry"])
def test_a_logger_that_dict_config_disables_logs_on(
    name: str, logging_as_before: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """`disable_existing_loggers` is true by default; a level that is set counts as ever."""
    log = steady_logger(name)
    handlers = {"there": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}
    root = {"handlers": ["there"], "level": "WARNING"}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "root": root})
    assert logging.getLogger(name).disabled
    log.warning("it %s", "arrives")
    log.info("too quiet")
    logging.getLogger(name).setLevel(logging.ERROR)
    log.warning("silenced")
    logging.getLogger(name).setLevel(logging.NOTSET)
    assert capsys.readouterr().out == "it arrives\n"


def test_a_line_of_the_log_names_the_place_that_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    """Not the helper in between."""
    steady_logger("chunkdl").warning("here")
    assert caplog.records[-1].pathname == __file__
    assert caplog.records[-1].funcName == ("test_a_line_of_the_log_names_the_place_that_wrote_it")


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "after it"])
def test_what_happens_to_workers_is_told_to_a_training_that_configures_its_logging(
    coordinate_dataset: Dataset, before: bool
) -> None:
    """A worker that was replaced is in the log, wherever `dictConfig` was called."""
    paths = [record.path for patient in coordinate_dataset for record in patient.slides]
    done = subprocess.run(
        [sys.executable, "-c", f"BEFORE = {before}\n{PROGRAM}", *paths],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    assert "a worker was replaced: collector" in done.stdout


def test_no_module_has_a_logger_that_can_be_disabled() -> None:
    """The kind, not the one: every logger of the library is a steady one."""
    files = {module.file for module in MODULES.values()} - {
        "chunkdl/system/steady_log.py",
        "chunkdl/service/daemon_log.py",  # configures the daemon's own log
    }
    wrong = [file for file in files if "getLogger" in (REPOSITORY / file).read_text()]
    assert wrong == []
