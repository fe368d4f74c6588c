"""Pages: HTML, figures, charts and methods texts."""
