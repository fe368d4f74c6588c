"""The state of this process: threads, locks, interrupts, scratch folders."""
