"""Detect COVID-19 in chest X-rays, and find out whether such a detector works at all.

The modules follow the data: ``cohort`` (what an image set is), ``phantom``, ``sources``,
``download`` and ``images`` (where images come from), ``augment``, ``split``, ``backbone``,
``training``, ``metrics``, ``claims``, ``explain``, ``plots``, ``predictor``, ``results``,
``report``, ``course`` and ``cli``. Nothing heavy is imported before it is used.

Teaching material. Not for clinical use.
"""

import logging

# TensorFlow warns of retracing whenever several small models are used in turn, as here
logging.getLogger("tensorflow").addFilter(lambda entry: "retracing" not in entry.getMessage())

__version__ = "0.1.0"
NOT_CLINICAL = "Teaching material: not for clinical use."
