"""Charts as inline SVG: Altair describes them, vl-convert draws them, the page's CSS variables colour them."""
