"""Pages of HTML that work without a network: their parts, and figures as SVG in two widths."""
