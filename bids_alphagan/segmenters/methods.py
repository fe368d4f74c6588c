"""The methods text about tissue masks: facts of a run, and the text of the segmenter that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.templates import Template, templateflow_homes


@dataclass(frozen=True)
class MaskFacts:
    """How tissue masks were made: Name and Version of `Segmenter.describe`, and the template.

    template_citation: "" if the template gives none. templateflow: whether the template came from TemplateFlow.
    """

    segmenter: str
    version: str
    template: str
    template_citation: str
    templateflow: bool

    @property
    def citations(self) -> dict[str, str]:
        """Citations that the paragraph may use in addition to `report.references`."""
        return {"template": self.template_citation}

    def paragraph(self, words: str) -> str:
        """The paragraph from a segmenter's text, with {template}, {name} and {version} filled in."""
        sources = ["template"] * bool(self.template_citation) + ["templateflow"] * self.templateflow
        template = f"{self.template} [@{'; '.join(sources)}]" if sources else self.template
        how = words.format(template=template, name=self.segmenter, version=self.version)
        return f"Masks of grey matter, white matter and cerebrospinal fluid were made {how}."


def mask_facts(segmenter: Segmenter | None, template: Template | None) -> MaskFacts | None:
    """The facts about the masks for the methods text; None without masks."""
    if segmenter is None or template is None:
        return None
    facts: Mapping[str, Any] = segmenter.describe()
    homes = {home.expanduser().resolve() for home in templateflow_homes()}
    from_templateflow = bool(homes & set(template.t2w.resolve().parents))
    name = template.name.replace("[@", "[")  # would be read as a citation
    return MaskFacts(facts["Name"], facts["Version"], name, template.citation, from_templateflow)
