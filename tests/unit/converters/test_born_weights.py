"""A task without weights: every process that builds the module gets the same one."""

from __future__ import annotations

from pathlib import Path

import torch

from converters.loading import load_task
from converters.module import build_module

DIGITS = Path(__file__).resolve().parents[3] / "examples" / "digits" / "task.py"


def test_weights_that_a_module_is_born_with_are_the_same_each_time() -> None:
    task = load_task(f"{DIGITS}:Digits")
    torch.manual_seed(1)
    first = build_module(task, None).state_dict()["head.weight"]
    undisturbed = torch.rand(1)
    second = build_module(task, None).state_dict()["head.weight"]
    assert torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(undisturbed, torch.rand(1))
    assert not torch.equal(first, build_module(task, None, seed=None).state_dict()["head.weight"])
