"""Everything about BIDS: file names, entity order, sidecars, data set descriptions and queries.

`names` and `derivatives` need only NumPy and nibabel, so a GPU node trains without pybids; `raw` queries the input
with pybids.
"""
