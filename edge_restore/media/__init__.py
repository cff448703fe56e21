"""Pictures and containers: what is known of them, and how they are read."""
