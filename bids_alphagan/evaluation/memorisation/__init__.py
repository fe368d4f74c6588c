"""Is any synthetic scan a copy of a training scan?"""
