"""Reports of what was measured: JSON for programs, HTML and PNG for people."""
