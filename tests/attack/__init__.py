"""The attack corpus: what is known to break egress filters, tried on running systems and judged at the far side."""
