"""One of each kind that a door takes, in a file each: the contract that tests/test_doors.py checks."""
