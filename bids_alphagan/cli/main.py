"""argv -> Config. Heavy imports happen only after the arguments are checked."""

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

exit codes: 0 all done; 1 some scans failed (listed at the end); 2 the call could not be carried out;
129, 130, 138, 143 interrupted by SIGHUP, SIGINT, SIGUSR1, SIGTERM: the same command resumes from the last
checkpoint
"""


AGAIN = "The same command resumes from here (unless it has --resume never)."


class _Parser(ArgumentParser[Config]):
    """The parser of argparse-dataclass, with a counting ``-v`` and the underscores of BIDS Apps."""

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
    argument_parser = _Parser(
        Config,
        prog="bids-alphagan",
        description="Turn a few rat-brain MRI scans into a synthetic cohort with tissue masks (a BIDS App).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"bids-alphagan {__version__}"
    argument_parser.add_argument(
        "--version",
        action="version",
        version=version,
        help="show the version and exit; with -v also what a run finds on this machine",
    )
    return argument_parser


def parse(argv: Sequence[str] | None = None) -> Config:
    """Read the options from the defaults, the preset, --config and the flags; later ones win.

    Raises
    ------
    UserError: an option's value, or a TOML file, that cannot be used.
    """
    argument_parser = parser()
    first = argument_parser.parse_args(argv)
    from_file = read_toml(first.config) if first.config else {}
    argument_parser.set_defaults(**from_file)
    preset = argument_parser.parse_args(argv).preset
    argument_parser.set_defaults(**preset_values(preset) | from_file)
    return argument_parser.parse_args(argv).checked()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app and return its exit code."""
    for number, handler in HANDLERS.items():
        if number not in IGNORABLE or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
    # By default OpenMP's threads wait by spinning, which slows them down beside any other busy program
    # (benchmarks/training.py threads). The variable is read when torch is loaded.
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
        _ignore_signals()
        print(f"bids-alphagan: {stopped}. {AGAIN}", file=sys.stderr)
        return 128 + stopped.by
    except KeyboardInterrupt:
        _ignore_signals()
        print(f"bids-alphagan: interrupted. {AGAIN}", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        close_logs()


def _run(config: Config) -> int:
    """Run the level. Its code takes seconds to import, so this follows the check of the arguments."""
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
IGNORABLE = (signal.SIGHUP, signal.SIGINT)  # nohup ignores the first, a shell the second in background jobs


def _ignore_signals() -> None:
    """At exit Python restores the default handlers, and a second signal would change the exit code."""
    for number in HANDLERS:
        signal.signal(number, signal.SIG_IGN)
