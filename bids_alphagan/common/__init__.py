"""What every room uses: errors, files, logs, volumes, the process."""
