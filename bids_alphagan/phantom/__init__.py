"""A digital rat head as a BIDS data set: the embedded demonstration, and the tests' data.

``shapes`` -> ``brain`` -> ``anatomy`` (the mean head) -> ``animal`` (an individual) -> ``acquisition`` (its
scan) -> ``dataset`` (files).
"""
