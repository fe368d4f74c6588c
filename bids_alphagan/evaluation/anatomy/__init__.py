"""Do the brain and tissues of synthetic scans have the same volumes, and the same variation, as real ones?"""
