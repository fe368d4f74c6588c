"""Statistics of whole cohorts, from the files of a run to rows of tables: STATISTICS.

Each is one function of `scans.Scans` that gives a `table.Finding`; a statistic that cannot be had raises
UserError with the reason, and the others go on.
"""

from bids_alphagan.evaluation.anatomy import table as anatomy
from bids_alphagan.evaluation.distribution import table as distribution
from bids_alphagan.evaluation.memorisation import table as memorisation
from bids_alphagan.evaluation.question import Statistic

STATISTICS: dict[str, Statistic] = {
    "distribution": Statistic(distribution.find, 2, {"distribution": distribution.COLUMNS}),
    "anatomy": Statistic(anatomy.find, 2, {"anatomy": anatomy.COLUMNS}),
    "memorisation": Statistic(
        memorisation.find,
        memorisation.VERSION,
        {"memorisation": memorisation.COLUMNS, "memorisation_summary": memorisation.SUMMARY_COLUMNS},
    ),
}
