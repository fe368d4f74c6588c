"""Do synthetic scans, as a set, spread as real animals do?"""
