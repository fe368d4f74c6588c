"""The commands, one file each. No other subpackage reads argv."""
