"""``bids-alphagan-template``: fetch and check templates before a run, for a cluster without a network."""

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

exit codes: 0 all templates can be used; 2 one cannot, and a line says why
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``bids-alphagan-template``."""
    argument_parser = argparse.ArgumentParser(
        prog="bids-alphagan-template",
        description="Fetch missing templates, check them, and describe them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    argument_parser.add_argument(
        "template", nargs="+", help="TemplateFlow NAME[:cohort-N], or a template's folder"
    )
    argument_parser.add_argument(
        "--home",
        type=Path,
        help="TemplateFlow's folder (default: TEMPLATEFLOW_HOME and ~/.cache/templateflow)",
    )
    argument_parser.add_argument("--no-download", action="store_true", help="use only local files")
    argument_parser.add_argument("--again", action="store_true", help="fetch existing files again, too")
    argument_parser.add_argument(
        "--shrink",
        type=Path,
        metavar="NEWDIR",
        help="copy a template that was enlarged ten times, in true size",
    )
    return argument_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 if a template cannot be used."""
    argument_parser = parser()
    options = argument_parser.parse_args(argv)
    if options.shrink and len(options.template) > 1:
        argument_parser.error("--shrink copies one template at a time")
    if options.again and options.no_download:
        argument_parser.error("--again downloads: leave out --no-download")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C, which cleans up
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
        print("bids-alphagan-template: interrupted; no half-fetched files are left", file=sys.stderr)
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
    """A description of a template, one fact per line, and how to use it from its folder."""
    image = load(template.t2w)
    volumes = template.volumes
    assert volumes  # find_template measures them
    paths = [*template.parts.values(), *filter(None, [template.background])]
    facts = {
        "template": template.name,
        "species": template.species or "unknown (template_description.json can name it)",
        "voxels": " x ".join(f"{size:g}" for size in image.header.get_zooms()[:3]) + " mm",
        "shape": " x ".join(map(str, image.shape[:3]))
        + ", axes to "
        + "".join(nib.aff2axcodes(image.affine)),
        "brain": "{:.2f} mL: GM {:.2f}, WM {:.2f}, CSF {:.2f} mL".format(*volumes),
        **{label: str(path) for label, path in template.parts.items()},
        "background map": str(template.background or "none: computed from the other maps"),
        "citation": template.citation or "unknown",
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
