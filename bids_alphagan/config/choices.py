"""The names that options choose from, where more than one room of the house needs them."""

LEVELS = ("participant", "group")
MODEL_NAMES = ("adni", "sigmarat1", "sigmarat2")
PRESETS = ("paper", "fast", "demo")
STEPS = ("train", "synthesise", "evaluate", "downstream", "report")
DEFAULT_STEPS = ("train", "synthesise", "evaluate", "report")  # downstream takes hours at full size
VARIANTS = ("paper", "released")
PROTOCOLS = ("held-out", "paper")
PRECISIONS = ("auto", "fp32", "bf16")
ON_DIVERGENCE = ("warn", "stop", "rollback")
USE_CHECKPOINT = ("last", "best")

# Ways to compute the same training faster, to rounding; each can be left out, to compare.
SPEEDUPS = ("layers", "slope", "one_pass", "channels_last", "fused")

# Training sets of the downstream experiment, as evaluation.downstream.arms.Arm names them.
DOWNSTREAM_ARMS = ("r1", "r1+s0.5", "r1+s1", "s1", "r0.5", "r0.5+s1", "r1+a", "r1+s1+a")
