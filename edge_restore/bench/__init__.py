"""The benchmark: how long restoring takes here, and what that says of published claims."""
