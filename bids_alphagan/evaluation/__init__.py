"""What synthetic scans are worth: a folder for each question."""
