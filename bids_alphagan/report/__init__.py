"""How a page is drawn: HTML, figures, charts."""
