"""``bids-alphagan-template``: fetch and check templates ahead of a run, for a cluster without a network."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.logs import close_logs, screen_log
from bids_alphagan.common.volume import load
from bids_alphagan.templates import Template, find_template, locate
from bids_alphagan.templates.shrink import shrink

EPILOG = """\
examples:
  bids-alphagan-template Fischer344 RESILIENT:cohort-1 --home /scratch/me/templates
  bids-alphagan-template ~/SIGMA/SIGMA_Rat_Functional_Imaging

exit codes: 0 all can be used; 2 one cannot, and a line says why
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``bids-alphagan-template``."""
    made = argparse.ArgumentParser(
        prog="bids-alphagan-template",
        description="Fetch templates if they are not there, check them, and say what they are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("template", nargs="+", help="TemplateFlow NAME[:cohort-N], or a template's folder")
    made.add_argument(
        "--home",
        type=Path,
        help="TemplateFlow's folder (default: TEMPLATEFLOW_HOME and ~/.cache/templateflow)",
    )
    made.add_argument("--no-download", action="store_true", help="only look at what is there")
    made.add_argument("--again", action="store_true", help="fetch anew what is there, too")
    made.add_argument("--shrink", type=Path, metavar="NEWDIR", help="copy a template of ten times the size")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 when a template cannot be used."""
    made = parser()
    options = made.parse_args(argv)
    if options.shrink and len(options.template) > 1:
        made.error("--shrink copies one template at a time")
    if options.again and options.no_download:
        made.error("--again downloads: leave out --no-download")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped as by Ctrl-C, which tidies up
    screen_log(0)
    failed = False
    try:
        for spec in options.template:
            try:
                print(_look(spec, options))
            except (UserError, OSError) as error:
                print(f"bids-alphagan-template: error: {' '.join(str(error).split())}", file=sys.stderr)
                failed = True
    except KeyboardInterrupt:
        print("bids-alphagan-template: interrupted; nothing is left half fetched", file=sys.stderr)
        return 130
    finally:
        close_logs()
    return 2 if failed else 0


def _look(spec: str, options: argparse.Namespace) -> str:
    home = options.home and options.home.absolute()
    if options.shrink:
        _, parts = locate(spec, home, not options.no_download, options.again)
        shrink(parts, options.shrink)
        spec = str(options.shrink)
    template = find_template(spec, home, not options.no_download, options.again and not options.shrink)
    return summary(template, spec)


def summary(template: Template, spec: str) -> str:
    """What a template is, in lines, and how to use it from where it is."""
    image = load(template.t2w)
    volumes = template.volumes
    assert volumes  # find_template measures them
    paths = [*template.parts.values(), *filter(None, [template.background])]
    facts = {
        "template": template.name,
        "species": template.species or "not known (template_description.json would say it)",
        "voxels": " x ".join(f"{size:g}" for size in image.header.get_zooms()[:3]) + " mm",
        "shape": " x ".join(map(str, image.shape[:3]))
        + ", axes to "
        + "".join(nib.aff2axcodes(image.affine)),
        "brain": "{:.2f} mL: GM {:.2f}, WM {:.2f}, CSF {:.2f} mL".format(*volumes),
        **{label: str(path) for label, path in template.parts.items()},
        "background map": str(template.background or "none: it is made from the others"),
        "citation": template.citation or "not known",
        "on disk": f"{sum(path.stat().st_size for path in paths) / 1e6:.1f} MB",
        "next": f"bids-alphagan BIDS_DIR OUTPUT_DIR participant --template {_argument(template, spec)}",
    }
    if not Path(spec).is_dir():
        home = next(path.parent for path in template.t2w.parents if path.name.startswith("tpl-"))
        facts["with"] = f"export TEMPLATEFLOW_HOME={shlex.quote(str(home))}"
    width = max(map(len, facts)) + 2
    return "\n".join(f"{name:{width}}{text}" for name, text in facts.items()) + "\n"


def _argument(template: Template, spec: str) -> str:
    return shlex.quote(str(template.t2w.parent)) if Path(spec).is_dir() else spec
