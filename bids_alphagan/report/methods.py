"""The methods section of a manuscript: the paragraphs of all parts, with the citations that a run needs.

Paragraphs cite by ``[@key]`` or ``[@key; key]``; `compose` numbers the citations and adds the list of references.
"""

import re
from collections.abc import Mapping, Sequence

from bids_alphagan.report.references import REFERENCES


def compose(paragraphs: Sequence[str], citations: Mapping[str, str]) -> str:
    """Number the citations, ``[@key]`` or ``[@key; key]``, by first use, and add the list of references.

    Parameters
    ----------
    citations: keys in addition to REFERENCES. One with the DOI of a known reference is replaced by that reference.

    Returns
    -------
    Paragraphs separated by blank lines; the last one is the list, one reference per line.
    """
    sources: dict[str, str] = dict(REFERENCES)
    for key, citation in citations.items():
        doi = _doi(citation)
        sources[key] = next((r for r in REFERENCES.values() if doi and _doi(r) == doi), citation)
    used: list[str] = []

    def number(match: re.Match[str]) -> str:
        references = [sources[key.strip()] for key in match[1].split(";")]
        used.extend(r for r in dict.fromkeys(references) if r not in used)
        return "[" + ", ".join(str(used.index(r) + 1) for r in references) + "]"

    body = [re.sub(r"\[@([^\]]+)\]", number, paragraph) for paragraph in paragraphs]
    listed = "\n".join(f"{i}. {reference}" for i, reference in enumerate(used, start=1))
    return "\n\n".join([*body, f"References\n{listed}"])


def _doi(citation: str) -> str | None:
    match = re.search(r"10\.\d{4,}/\S+", citation)
    return match[0].rstrip(".,;)") if match else None


def count(n: int, noun: str) -> str:
    """A number with its noun: 1 scan, 2 scans."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
