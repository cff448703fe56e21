"""The simulator: what happens to light on its way from a sharp scene to an 8-bit picture.

One module a degradation, each with a frozen model whose fields are the keys of a recipe's table:

==================  ==================  =========================================================
module              table of a recipe   what it does
==================  ==================  =========================================================
``train.blur``      ``[blur]``          an exposure: camera motion, a layer in front, a sensor
``trajectories``    ``[blur]``          how a hand or a thing moves while the shutter is open
``sensor``          ``[blur]``          exposure, highlights beyond white, read and shot noise
``noise``           ``[noise]``         Gaussian and Poisson noise, for ``task = "denoise"``
``rain``            ``[rain]``          rain streaks and mist, for ``task = "derain"``
``compression``     ``[compression]``   JPEG for any task; H.264 where pairs are made or packed
``degradation``     all of them         the recipe's task applied to a batch
==================  ==================  =========================================================

docs/simulator.md shows them at each severity.
"""
