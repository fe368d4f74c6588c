"""What is typed: one file for each command. Nothing below knows argv."""
