"""Noise -> volume -> NIfTI -> masks -> kept, or rejected and drawn again."""
