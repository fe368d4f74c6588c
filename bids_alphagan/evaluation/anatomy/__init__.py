"""Are brain and tissues of synthetic scans as large, and as varied, as real ones?"""
