"""Detect COVID-19 in chest X-rays, and find out whether such a detector works at all.

The modules follow the way of the data; none imports a later one.

What an image set is     cohort; files (where things live, written whole,
                         and what strangers' text and files may not do)
Where images come from   sources (the names you load by)
                         phantom: thorax, skeleton, findings, scanner
                         open, external: pinned
                         chexpert; folders; images decodes them all, once: films, dicom
What is done to them     augment, split
What learns              backbone (frozen features); engine (what computes them); training (one
                         network); heads (many at once); bulk (features of very many images)
Where it runs            machine; threads; cluster (dask.distributed, where a scheduler is named)
What came out            metrics, claims (the paper's figures),
                         explain (Grad-CAM), predictor (a saved model), results
Does it work at all      verdicts, measured, check (the paper's claims); reconstruct with rounding
                         (the integers behind them); headline (one model, four scores);
                         views, probes, shortcuts; leaks, duplicates; knob; transfer, remedies;
                         audit (all of these, on any cohort) with judge and judgeviews (its lights)
What people see          plots: style, imageplots, cohortplots, trainingplots, scoreplots,
                         drawings, claimplots, auditplots, knobplots
What people touch        frontend (is somebody there?), guesses (with guessforms), widgets:
                         explorer, phantomwidget, predictionwidget
Running it all           lessons, progress, execute, runfolder, course; report (with tables),
                         auditpage; cli, auditcli (with auditload), checkcli (command cxr)

Nothing heavy is imported before it is used. Teaching material. Not for clinical use.
"""

import logging

# TensorFlow warns of retracing whenever several small models are used in turn, as here
logging.getLogger("tensorflow").addFilter(lambda entry: "retracing" not in entry.getMessage())

__version__ = "0.1.0"
NOT_CLINICAL = "Teaching material: not for clinical use."
