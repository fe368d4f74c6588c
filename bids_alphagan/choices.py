"""The names that options choose from, where more than one room of the house needs them."""

LEVELS = ("participant", "group")
MODEL_NAMES = ("adni", "sigmarat1", "sigmarat2")
PRESETS = ("paper", "fast", "demo")
STEPS = ("train", "synthesise", "evaluate", "report")
VARIANTS = ("paper", "released")
PRECISIONS = ("auto", "fp32", "bf16")
ON_DIVERGENCE = ("warn", "stop", "rollback")
USE_CHECKPOINT = ("last", "best")

# Ways to compute the same training faster, to rounding; each can be left out, to compare.
SPEEDUPS = ("layers", "slope", "one_pass", "channels_last", "fused")
