"""Quality control (QC): the measures of a scan's masks, their limits, the results, and the rejected draws."""
