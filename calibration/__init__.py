"""The calibration room: INT8 graphs with explicit Q/DQ nodes, and whether they are good enough."""
