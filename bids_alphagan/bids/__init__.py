"""The only place that knows BIDS: names and entity order, sidecars, data set descriptions, queries.

`names` and `derivatives` need nothing but the standard library, so a GPU node trains without pybids;
`raw` queries the input with pybids.
"""
