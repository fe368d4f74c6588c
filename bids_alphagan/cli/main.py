"""argv -> Config. Nothing heavy is imported before the arguments are known good."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from argparse_dataclass import ArgumentParser

from bids_alphagan import __version__
from bids_alphagan.common.errors import ScanError, Stopped, UserError
from bids_alphagan.common.logs import close_logs, screen_log
from bids_alphagan.config import Config
from bids_alphagan.config.files import preset_values, read_toml

EPILOG = """\
first try, on the embedded phantom:
  bids-alphagan-phantom data
  bids-alphagan data out participant --template data/derivatives/templateflow/tpl-RatPhantom --preset demo
  bids-alphagan data out group --template data/derivatives/templateflow/tpl-RatPhantom --preset demo

exit codes: 0 all done; 1 some scans failed (listed at the end); 2 nothing could be done with this call;
129, 130, 138, 143 interrupted by SIGHUP, SIGINT, SIGUSR1, SIGTERM: the same command goes on from the last
checkpoint
"""


AGAIN = "The same command goes on from here (without --resume never)."


class _Parser(ArgumentParser[Config]):
    """The parser that argparse-dataclass makes, with a counting ``-v`` and BIDS Apps' underscores."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        if "--verbose" in args:
            kwargs = {"action": "count", "dest": "verbose", "default": 0, "help": kwargs["help"]}
        elif kwargs.get("help") and "action" not in kwargs and args[0].startswith("-"):
            kwargs["help"] += _default_of(kwargs.get("dest") or args[0].lstrip("-").replace("-", "_"))
        return super().add_argument(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}. All options: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Config:
        words = sys.argv[1:] if args is None else list(args)
        return super().parse_args([_dashes(word) for word in words], namespace)


def _dashes(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _default_of(name: str) -> str:
    field = Config.__dataclass_fields__.get(name)
    default = field.default if field else None
    if field and callable(field.default_factory):
        default = " ".join(map(str, field.default_factory()))
    return f" (default: {default})" if isinstance(default, str | int | float) else ""


def parser() -> _Parser:
    """The command line of ``bids-alphagan``."""
    made = _Parser(
        Config,
        prog="bids-alphagan",
        description="Turn a few rat-brain MRI scans into a synthetic cohort with tissue masks (a BIDS App).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"bids-alphagan {__version__}"
    made.add_argument(
        "--version",
        action="version",
        version=version,
        help="say it and end; with -v: also what a run finds here",
    )
    return made


def parse(argv: Sequence[str] | None = None) -> Config:
    """Defaults, then the preset, then --config, then flags: the later wins.

    Raises
    ------
    UserError: an option's value, or a TOML file, that cannot be used.
    """
    made = parser()
    first = made.parse_args(argv)
    from_file = read_toml(first.config) if first.config else {}
    made.set_defaults(**from_file)
    preset = made.parse_args(argv).preset
    made.set_defaults(**preset_values(preset) | from_file)
    return made.parse_args(argv).checked()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code."""
    for number, handler in HANDLERS.items():
        if number not in IGNORABLE or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
    # OpenMP's threads wait for one another by spinning, which starves them beside any other busy program
    # (benchmarks/training.py threads). It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = sys.argv[1:] if argv is None else list(argv)
    rest = [word for word in words if word not in ("--version", "-v", "-vv", "--verbose")]
    if "--version" in words and len(words) - len(rest) > 1:
        from bids_alphagan.cli import check as check_cli

        return check_cli.main(rest)
    try:
        config = parse(argv)
        screen_log(config.verbose)
        return _run(config)
    except (UserError, ScanError) as error:
        print(f"bids-alphagan: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        _hear_no_more()
        print(f"bids-alphagan: {stopped}. {AGAIN}", file=sys.stderr)
        return 128 + stopped.by
    except KeyboardInterrupt:
        _hear_no_more()
        print(f"bids-alphagan: interrupted. {AGAIN}", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        close_logs()


def _run(config: Config) -> int:
    """Run the level. Its code takes seconds to import: not before the arguments are known to be good."""
    from bids_alphagan.bids import raw
    from bids_alphagan.common.process.scratch import use_scratch
    from bids_alphagan.config.run import check_output

    raw.check_dataset(config.bids_dir)
    check_output(config.bids_dir, config.output_dir, config.work)
    use_scratch(config.work)  # before nipype, matplotlib and the like are imported
    if config.analysis_level == "participant":
        from bids_alphagan import participant

        return participant.run(config)
    from bids_alphagan import group

    return group.run(config)


def _stop(number: int, frame: Any) -> None:
    by = signal.Signals(number)
    raise Stopped(f"stopped by {by.name}", by)


HANDLERS = {
    signal.SIGTERM: _stop,
    signal.SIGUSR1: _stop,
    signal.SIGHUP: _stop,
    signal.SIGINT: signal.default_int_handler,
}
IGNORABLE = (signal.SIGHUP, signal.SIGINT)  # by nohup, and by a shell for what it starts in the background


def _hear_no_more() -> None:
    """While Python ends, it gives signals their defaults back: a second one would change the exit code."""
    for number in HANDLERS:
        signal.signal(number, signal.SIG_IGN)
