"""Detect COVID-19 in chest X-rays, and find out whether such a detector works at all.

The front, module by module, is what the lessons teach; each room is a folder with one purpose, and
hands out a few names. None imports one above it (docs/architecture.md draws the house):

What an image set is     cohort; files, machine (where things live, what computed a result)
Where images come from   sources (load by name); phantom (synthetic films whose truth is known);
                         images, dicom (a file -> grey values)
What is done to them     augment, split
What learns              backbone (frozen features), training; compute (the fast ways)
What came out            metrics, explain (Grad-CAM), predictor (a saved model), results
Does it work at all      paper (its claims, our verdicts); shortcuts (experiments that doubt a
                         score); audit (any image set judged)
What people see, touch   plots; interactive (guesses, explorers)
Running it all           course (lessons, runs, the report); bulk (very many films); cli (``cxr``)

Nothing heavy is imported before it is used. Teaching material. Not for clinical use.
"""

import logging

# TensorFlow warns of retracing whenever several small models are used in turn, as here
logging.getLogger("tensorflow").addFilter(lambda entry: "retracing" not in entry.getMessage())

__version__ = "0.1.0"
NOT_CLINICAL = "Teaching material: not for clinical use."
