"""Noise -> volume -> NIfTI -> masks -> kept, or drawn again."""
