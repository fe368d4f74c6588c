"""The visual Turing test: can people distinguish real scans from synthetic ones?

``selection`` (which scans) -> ``volumes`` (equal in all but anatomy) -> ``kit`` (the page, and the key that
stays with the lab); then ``answers`` (the raters' files) -> ``score`` -> ``results``. Nothing here needs
torch, pybids or nipype. Source: Ferreira et al. 2022, section 2.5 and Table 3 (doi 10.3390/app12104844).
"""

from bids_alphagan.turing.kit import KitOptions, make
from bids_alphagan.turing.results import score_kit

__all__ = ["KitOptions", "make", "score_kit"]
