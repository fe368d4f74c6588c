"""Shared by all subpackages: errors, files, logs, volumes, and the state of the process."""
