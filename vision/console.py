"""What any command line shares, whether or not it has to do with nets: parsing, one-line errors, log format, progress.

Nothing in here loads torch.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import itertools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO

from tqdm import tqdm

from vision.utils.errors import error_line

#: Exit code for errors that the user can correct.
USER_ERROR = 2
#: Exit code for what went wrong inside: out of memory, a missing package, a worker that died.
FAILURE = 1
#: Exit code where nobody reads the output any more: what a shell has of programs that SIGPIPE ends.
READER_GONE = 141

#: What an argument that names an option is; numbers below zero are none.
_OPTION_NAME = re.compile(r"--?[A-Za-z][\w-]*")
#: Options that the error about an unknown one names at the most, and from which similarity (0 to 1) one is.
_MAX_HINTS, _MIN_SIMILARITY = 4, 0.7


def default_text(value: Any) -> str:
    """Write a default as it would be typed: a list of folders with spaces, a list of numbers with commas."""
    if isinstance(value, (list, tuple)):
        return (" " if all(isinstance(part, str) for part in value) else ",").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds the defaults that help does not say itself, and that are values: not those of plain switches."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_switch = action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction)
        is_said = "(default" in (action.help or "")
        if is_switch or is_said or action.default in (None, (), argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: {default_text(action.default)})"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which takes `--model_dir` for `--model-dir`.

    Options are not abbreviated: `--model` would name one thing in one script and another in the next.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Parse, with underscores in the names of options read as hyphens."""
        argv = sys.argv[1:] if args is None else args
        for argument in itertools.takewhile(lambda argument: argument != "--", argv):
            self._check_name(argument)  # before argparse says that something else is missing
        return super().parse_known_args([_kebab(argument) for argument in argv], namespace)

    def _check_name(self, argument: str) -> None:
        """End with an error that names the nearest options if an argument names one that there is not."""
        name, known = argument.partition("=")[0], self._option_string_actions
        is_short = not name.startswith("--") and name[:2] in known  # perhaps several in one word
        if not _OPTION_NAME.fullmatch(name) or _kebab(name) in known or is_short:
            return
        meant = "--" + name.lstrip("-").replace("_", "-")
        near = [other for other in known if other.startswith(meant)]
        near = near or difflib.get_close_matches(meant, known, n=1, cutoff=_MIN_SIMILARITY)
        hint = f", did you mean {' or '.join(near[:_MAX_HINTS])}?" if near else ""
        self.error(f"unknown option {name}{hint} (--help lists all options)")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line and exit."""
        self.exit(USER_ERROR, f"{self.prog}: error: {message}\n")


def _kebab(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def str2bool(text: str) -> bool:
    """Read a flag: "true" and "1" in any case are true, all else is false."""
    return text.strip().lower() in ("true", "1")


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a script's `main` and exit; an error that the user can correct becomes one line and exit code 2."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as the scripts have it while they import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    open_streams()
    name = Path(sys.argv[0]).name
    code: int | str | None = FAILURE
    try:
        code = main(argv) or 0
    except SystemExit as err:
        code = err.code
    except BrokenPipeError:  # of standard output: who read it, as `head` does, has had enough
        code = READER_GONE
    except (ValueError, OSError) as err:
        logging.getLogger().debug("the error below, whole:", exc_info=True)
        code = _end_with(USER_ERROR, f"{name}: error: {error_line(err)}")
    except _inner_errors() as err:
        logging.getLogger().debug("the error below, whole:", exc_info=True)
        code = _end_with(FAILURE, f"{name}: failed: {error_line(err)} ({type(err).__name__})")
    except KeyboardInterrupt:
        code = _end_with(130, f"{name}: interrupted")
    finally:
        for stream in (sys.stdout, sys.stderr):  # Python would do so when it exits, with another exit code
            if lost := write_out(stream, stream.flush, is_last=True):
                _end_with(code, f"{name}: not all of the output could be written: {lost}")
    sys.exit(code)


def _inner_errors() -> tuple[type[Exception], ...]:
    """What goes wrong inside; OpenCV's errors, too, where a script has loaded it."""
    opencv = sys.modules.get("cv2")
    return (RuntimeError, ImportError, *(() if opencv is None else (opencv.error,)))


#: Names of the scripts as commands of an installed package.
INSTALLED = {"eval_ssd.py": "ssd-eval", "onnx_export.py": "ssd-export"}


def command_of(script: str) -> list[str]:
    """Return what starts another script, as the one that runs was started: its file, or an installed command.

    Args:
        script: a key of `INSTALLED`.
    """
    started = Path(sys.argv[0])
    return ["python3", str(started.with_name(script))] if started.suffix == ".py" else [INSTALLED[script]]


def answer_help(make_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str]) -> None:
    """Show help and exit where that is asked for: scripts call this before they import what takes seconds to load.

    Args:
        make_parser: of the script.
        argv: arguments of the command line.
    """
    if {"-h", "--help"} & set(argv):

        def show_help(argv: Sequence[str] | None) -> None:
            make_parser().parse_args(argv)

        run(show_help, argv)


def _end_with(code: Any, line: str) -> Any:
    """Write the last line of a script to standard error, after all of standard output; gives the exit code."""
    write_out(sys.stdout, sys.stdout.flush)
    write_out(sys.stderr, lambda: sys.stderr.write(f"{line}\n"))
    return code


def open_streams() -> None:
    """Give the process the standard streams that it was started without, as some services are."""
    for descriptor in range(3):  # else the next file that is opened would be taken for one of them
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def write_out(stream: TextIO, write: Callable[[], object], is_last: bool = False) -> str:
    """Write to a stream; gives why that failed, "" where it did not or nobody reads it any more.

    Where it fails for good, the rest of the output goes nowhere. A full disk may have room again.

    Args:
        stream: of the output.
        write: does it.
        is_last: there will be no other try.
    """
    try:
        write()
    except (OSError, ValueError, RuntimeError) as err:  # besides the system's: it was closed; a signal came within it
        reader_is_gone = getattr(err, "errno", None) in (errno.EPIPE, errno.EIO)
        if reader_is_gone or is_last:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
        return "" if reader_is_gone else error_line(err)
    return ""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Context in which what ends a service, as `docker stop` does, is like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Types of options; argparse shows the text of an ArgumentTypeError behind the option's name.


def user_place(text: str) -> str:
    """Read a path, or a word, pattern or address in the place of one; `~` is the home folder.

    Shells put it in only at the beginning of a word, so not in `--data=~/fruit`.
    """
    return os.path.expanduser(text)


def user_path(text: str) -> Path:
    """Read a path, see `user_place`."""
    return Path(user_place(text))


def checked(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a type of an option from a function that raises ValueError."""

    def convert(text: str) -> Any:
        try:
            return function(text)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def one_of(kind: str, known: Sequence[str]) -> Callable[[str], str]:
    """Make a type that takes one of a few words, and names the nearest for any other."""

    @checked
    def convert(text: str) -> str:
        if text in known:
            return text
        near = difflib.get_close_matches(text, known, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown {kind} {text!r}{hint} (choose from {', '.join(known)})")

    return convert


def number(kind: type, least: float, most: float = float("inf"), *, above: bool = False) -> Callable[[str], Any]:
    """Make a type for a number from `least` (or above it) to `most`."""
    bound = f"above {least:g}" if above else f"of at least {least:g}"
    limit = "" if most == float("inf") else f" and at most {most:g}"

    @checked
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (least < value if above else least <= value) or not value <= most:
            what = "whole number" if kind is int else "number"
            raise ValueError(f"{text!r} is not a {what} {bound}{limit}")
        return value

    return convert


count = number(int, 1)
fraction = number(float, 0, 1)


def count_or(word: str) -> Callable[[str], int | None]:
    """Make a type that takes a whole number of at least 1, or a word for None."""

    @checked
    def convert(text: str) -> int | None:
        if text == word:
            return None
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{text!r} is neither {word} nor a whole number of at least 1")
        return int(text)

    return convert


@checked
def open_fraction(text: str) -> float:
    """Read a number between 0 and 1, neither of them."""
    value = number(float, 0, 1)(text)
    if value in (0, 1):
        raise ValueError(f"{text!r} leaves nothing for one of the two; expected a share between 0 and 1, such as 0.2")
    return value


# Output.


#: The documented form of a line of the log: `2026-01-31 12:00:00 - message`.
_LOG_FORM = logging.Formatter("%(asctime)s - %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


class _TerminalForm(logging.Formatter):
    """The message alone; warnings begin with that word."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


class _OutputHandler(logging.Handler):
    """Writes the log to standard output, past any progress bar.

    Files and pipes get the documented form. On a terminal, where nothing parses it, lines have no date, and those that
    bars and tables show there are left out, unless the level is debug.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        is_terminal = sys.stdout.isatty()
        self.setFormatter(_TerminalForm() if is_terminal else _LOG_FORM)
        if is_terminal and level > logging.DEBUG:
            self.addFilter(lambda record: not hasattr(record, "not_on_terminals"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        text = self.format(record)
        # What is logged is not worth the work: a closed pipe or terminal or a full disk must not end a run.
        write_out(sys.stdout, lambda: tqdm.write(text, file=sys.stdout))
        write_out(sys.stdout, sys.stdout.flush)


class LogFile(logging.Handler):
    """The log of a run in a file, in the documented form; a context, which logs the error that ends it, too.

    Lines are kept until the file is opened. So a run that does not even begin leaves no file.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_LOG_FORM)
        self._stream: TextIO | None = None
        self._waiting: list[str] = []

    def __enter__(self) -> LogFile:
        root = logging.getLogger()
        root.setLevel(min(root.level, self.level))  # the level of the output is that of its own handler
        root.addHandler(self)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            self.emit(logging.makeLogRecord({"msg": f"error: {error_line(error)}"}))
        logging.getLogger().removeHandler(self)
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()

    def open(self, path: Path, *, goes_on: bool = False) -> None:
        """Write all lines to a file from now on, and what was logged before; a run that goes on appends to it."""
        mode: Literal["a", "w"] = "a" if goes_on else "w"
        self._stream = open(path, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed at exit
        for line in self._waiting:
            self._write(line)
        self._waiting = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._write(self.format(record))

    def _write(self, line: str) -> None:
        stream = self._stream
        if stream is None:
            self._waiting.append(line)
            return
        write_out(stream, lambda: stream.write(f"{line}\n"))
        write_out(stream, stream.flush)


def setup_logging(level: str = "info") -> None:
    """Log to standard output: see `_OutputHandler`."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # a name of a class or file must not end a run whose output is redirected
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # By default a lock of several processes: a loader process that is killed while it has the lock would stop the run.
    tqdm.set_lock(threading.RLock())
    handler = _OutputHandler(logging.getLevelName(level.upper()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts


def progress(items: Iterable, what: str, total: int | None) -> Iterable:
    """Show a bar with the time left on a terminal, nothing elsewhere."""
    return tqdm(items, desc=what, total=total, leave=False, dynamic_ncols=True, disable=None)


class TerminalStepBar:
    """A bar on a terminal, nothing elsewhere; see `vision.utils.progress.StepBar`.

    Args:
        what: to write before it.
        steps: that there are.
    """

    def __init__(self, what: str, steps: int) -> None:
        form = "{desc}  {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
        self._bar = tqdm(desc=what, total=steps, leave=False, dynamic_ncols=True, disable=None, bar_format=form)

    def show(self, step: int, note: str) -> None:
        """Show how many steps are done; the note stands behind them, "" keeps the last one."""
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def check_writable(folder: Path, option: str) -> None:
    """Make a folder, with parents.

    Raises:
        ValueError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ValueError(
            f"{option}={folder}: cannot be made ({err.strerror}: {err.filename}); name another folder"
        ) from err
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option}={folder}: cannot be written to; name another folder")


@contextmanager
def writable_folder(folder: Path, option: str) -> Iterator[None]:
    """Context with a folder, which is made if need be, and goes again if the context fails and has put nothing there.

    Raises:
        ValueError: it cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        check_writable(folder, option)
        yield
    except BaseException:
        with suppress(OSError):  # that it is not empty
            for path in made:
                path.rmdir()
        raise
