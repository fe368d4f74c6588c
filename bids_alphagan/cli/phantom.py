"""``bids-alphagan-phantom``: write a data set of digital rat heads.

Heavy imports happen only after the options are checked.
"""

import shlex
import signal
import sys
from collections.abc import Sequence

from argparse_dataclass import ArgumentParser

from bids_alphagan.common.errors import UserError
from bids_alphagan.phantom.options import PhantomOptions, check

EXPLANATION = """Write a valid raw BIDS data set of digital rat heads that imitates resting-state
T2-weighted EPI at 11.7 T, with the true tissue labels and a TemplateFlow template beside it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 if the call cannot be carried out."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C, which cleans up
    parser = ArgumentParser(PhantomOptions, prog="bids-alphagan-phantom", description=EXPLANATION)
    options = parser.parse_args(argv)
    try:
        check(options)
        from bids_alphagan.phantom.dataset import write_dataset

        write_dataset(options, progress=lambda line: print(line, file=sys.stderr))
    except UserError as error:
        print(f"bids-alphagan-phantom: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"bids-alphagan-phantom: stopped, nothing is left in {options.out}", file=sys.stderr)
        return 130
    out = options.out
    templates = out / "derivatives" / "templateflow"
    results = out.with_name(f"{out.name}-derivatives")
    print(f"raw data set  {out}")
    print(f"truth         {out / 'derivatives' / 'truth'}")
    print(f"template      {templates / 'tpl-RatPhantom'}")
    print("next:")
    command = ["bids-alphagan", str(out), str(results), "participant", "--template", "RatPhantom"]
    print(f"  TEMPLATEFLOW_HOME={shlex.quote(str(templates))} {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
