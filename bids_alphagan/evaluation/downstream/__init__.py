"""Do synthetic scans help? Segmentation networks with and without them, tested on held-out real animals.

``scans`` (arrays and labels on one grid) -> ``arms`` (the training sets) -> ``network`` (one training) ->
``measures`` -> ``summary`` (gains with intervals, sentences) -> ``table``; ``experiment`` runs everything. Follows
table 4 of Ferreira et al. 2022 (doi 10.3390/app12104844), with held-out animals, equal steps and several seeds.
"""

# Training sets, by `arms.Arm.name`.
DEFAULT_ARMS = ("r1", "r1+s0.5", "r1+s1", "s1", "r0.5", "r0.5+s1", "r1+a", "r1+s1+a")
