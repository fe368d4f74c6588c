"""Synthetic rat-brain MRI cohorts with tissue masks, as a BIDS App."""

__version__ = "0.1.0"
