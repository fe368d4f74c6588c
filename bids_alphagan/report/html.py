"""Pages from templates, each one self-contained HTML file.

Templates are in the folders of the code that fills them, and are named by their path in the package.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bids_alphagan import __version__
from bids_alphagan.common.files import write_text
from bids_alphagan.report.numbers import decimals, number

TABLES = "report/section.html.j2"  # notes and tables, for sections without their own template


@dataclass(frozen=True)
class Section:
    """A section of a page. id: its anchor. title: in the page's navigation. view: the template's data."""

    id: str
    title: str
    view: Mapping[str, Any]
    template: str = TABLES

    @property
    def html(self) -> Markup:
        """The rendered section."""
        template = _environment().get_template(self.template)
        return Markup(template.render(section=self, view=self.view))


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template with `content` and write the page; an existing file is replaced as a whole."""
    write_text(path, _environment().get_template(template).render(version=__version__, **content))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bids_alphagan", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "number": number, "decimals": decimals}
    return environment


def _prose(text: str) -> Markup:
    """Plain text as paragraphs, with DOIs as links. The text itself is escaped."""
    paragraphs = [str(escape(p.strip())) for p in re.split(r"\n\s*\n", text.strip())]
    linked = [
        re.sub(r"doi:(10\.\S+?)(?=[.,;)]*(?:\s|$))", r'<a href="https://doi.org/\1">doi:\1</a>', p)
        for p in paragraphs
    ]
    headed = [re.sub(r"\AReferences\n", "<strong>References</strong>\n", p) for p in linked]
    return Markup("".join(f"<p>{p.replace(chr(10), '<br>')}</p>" for p in headed))
