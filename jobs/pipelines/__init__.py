"""Pipelines: named lists of steps for uploaded files, sent as flows, whose results appear together.

>>> from packmule.jobs.files import file
>>> from packmule.jobs.pipelines import Pipeline, step
>>> intake = Pipeline("intake", file, step(file, to="parquet", name="table"))
>>> intake.enqueue("uploads/a.csv")  # doctest: +SKIP
"""

from __future__ import annotations

from packmule.jobs.pipelines.checks import InvalidPipeline
from packmule.jobs.pipelines.pipeline import Pipeline
from packmule.jobs.pipelines.steps import Step, step

__all__ = ["InvalidPipeline", "Pipeline", "Step", "step"]
