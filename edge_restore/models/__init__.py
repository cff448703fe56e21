"""Networks as files: graphs, their cards, and those that are shipped."""
