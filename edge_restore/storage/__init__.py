"""Files: written beside and renamed, read within bounds, checked against each other."""
