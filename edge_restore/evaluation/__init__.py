"""Quality: pairs, scores and protocols."""
