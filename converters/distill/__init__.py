"""Distillation: a small student learns from what a large teacher answers.

:mod:`~converters.distill.losses` has the losses, :mod:`~converters.distill.teacher` and
:mod:`~converters.distill.features` fit teacher and student together,
:mod:`~converters.distill.run` trains, and can be resumed exactly.
"""
