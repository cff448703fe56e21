"""From a source through a network to a sink."""
