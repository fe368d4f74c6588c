"""Quality control: what is measured of a scan's masks, which values pass, and what was rejected."""
