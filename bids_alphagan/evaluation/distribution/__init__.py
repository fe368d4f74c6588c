"""Do synthetic scans, as a set, vary like real animals?"""
