"""Level 1: one scan at a time, by a nipype workflow."""
