"""Plain statements to compare the package with."""
