"""Training: from prepared volumes to a fitted model. Needs torch and NumPy, but neither nipype nor pybids.

It depends on no particular model: `models.base` defines models, networks and phases.
"""
