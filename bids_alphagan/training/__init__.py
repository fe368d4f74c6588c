"""Training: prepared volumes in, a fitted model out. Needs torch, NumPy and nothing of nipype or pybids.

It knows no single model: `models.base` says what a model, its networks and its phases are.
"""
