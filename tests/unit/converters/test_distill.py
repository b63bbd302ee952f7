"""Distillation pays where labels are poor, resumes exactly, and refuses what does not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from converters.distill.features import Pair, choose_pairs
from converters.distill.losses import feature_loss, logit_loss, mask_loss, mask_overlap
from converters.distill.run import Distilled, distill
from converters.distill.settings import Settings
from converters.distill.teacher import split_reference
from converters.loading import load_task
from converters.module import save_weights
from converters.train import train
from edge_sdk.errors import EdgeError

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits"

STUDENTS = '''

class Small(Digits):
    """A student of 1,200 weights."""
    name = "small"
    resolutions = ((16, 16),)

    def build(self):
        layers = _conv(1, 6, 2), _conv(6, 12, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(48, 10))


class Noisy(Small):
    """Four of ten labels are drawn at random."""
    def targets(self, labels):
        random = np.random.default_rng(int(labels.sum()))
        wrong = random.random(len(labels)) < 0.4
        return np.where(wrong, random.integers(0, 10, len(labels)), labels)


class Big(Digits):
    resolutions = ((16, 16),)
'''


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with students and a teacher of digits, and the teacher's weights."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    shutil.copy(EXAMPLE / "digits_data.py", folder)
    path = folder / "distill_digits.py"
    path.write_text((EXAMPLE / "task.py").read_text() + STUDENTS)
    save_weights(train(load_task(f"{path}:Big"), epochs=4).module, folder / "big.pt")
    return path


def run_on(path: Path, student: str, choice: Settings, checkpoint: Path) -> Distilled:
    teacher = f"{path}:Big:{path.parent / 'big.pt'}"
    return distill(load_task(f"{path}:{student}"), teacher, settings=choice, checkpoint=checkpoint)


def test_a_teacher_helps_where_labels_are_wrong(digits: Path, tmp_path: Path) -> None:
    """Same initial weights, same batches: only the teacher makes the difference."""
    choice = Settings(losses=("logit",), hard=0.1, epochs=8, seed=1)
    found = run_on(digits, "Noisy", choice, tmp_path / "c")
    assert found.teacher > 0.95
    assert found.alone is not None
    assert found.distilled > found.alone
    assert found.distilled > 0.8


def test_a_teacher_does_no_harm_where_labels_are_right(digits: Path, tmp_path: Path) -> None:
    choice = Settings(losses=("logit", "feature"), epochs=8, seed=1)
    found = run_on(digits, "Small", choice, tmp_path / "c")
    assert found.alone is not None
    assert found.distilled >= found.alone - 0.04
    assert found.pairs  # matched by shape
    assert [p.stage for p in found.history] == ["alone"] * 8 + ["distilled"] * 8


QUICK = Settings(losses=("logit", "feature"), epochs=3, seed=5)


def test_inputs_alone_suffice(school: str, tmp_path: Path) -> None:
    task = load_task(f"{school}:Unlabelled")
    found = distill(
        task, f"{school}:Wide", settings=replace(QUICK, alone=False), checkpoint=tmp_path / "c"
    )
    assert found.alone is None and len(found.history) == 3
    with pytest.raises(EdgeError, match=r"task\.not-labelled"):
        distill(task, f"{school}:Wide", settings=QUICK, checkpoint=tmp_path / "d")


def test_masks_are_learned_from_a_teacher_without_labels(school: str, tmp_path: Path) -> None:
    task = load_task(f"{school}:Blobs")
    choice = Settings(losses=("mask",), epochs=12, learning_rate=0.02)
    found = distill(task, f"{school}:BlobTeacher", settings=choice, checkpoint=tmp_path / "c")
    assert found.measure == "agreement" and found.alone is None
    assert found.teacher == 1.0
    assert found.history[0].loss > found.history[-1].loss
    assert found.distilled > 0.8


def test_a_teacher_sees_its_own_normalisation(school: str) -> None:
    from converters.distill.teacher import load_teacher

    student = load_task(f"{school}:Tiny")
    plain, rescaled = (load_teacher(f"{school}:{n}", student) for n in ("Wide", "Rescaled"))
    pixels = torch.rand(2, 1, 12, 12) * 255
    seen = (pixels - 0.0) / 255.0
    assert torch.allclose(plain(seen), plain.module(seen))
    assert torch.allclose(rescaled(seen), plain.module((pixels - 51.0) / 127.5), atol=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "change", "code"),
    [
        ("Tiny", "Four", {}, "task.teacher-mismatch"),
        ("Tiny", "Broken", {}, "task.teacher-mismatch"),
        ("Tiny", "Tiny", {}, "usage.same-network"),
        ("Tiny", "Wide:none.pt", {}, "task.weights-missing"),
        ("Tiny", "Wide", {"epochs": -3}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"hard": float("nan")}, "usage.bad-distillation"),
        ("Tiny", "Coloured", {}, "task.teacher-mismatch"),
        ("Blobs", "Tiny", {}, "task.teacher-mismatch"),
        ("Blobs", "BlobTeacher", {"losses": ("logit",)}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"losses": ("mask",)}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"losses": ("logits",)}, "usage.unknown-loss"),
        ("Tiny", "Wide", {"losses": ()}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"temperature": 0.0}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"hard": 1.5}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"epochs": 0}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"features": ("body=2",), "losses": ("logit",)}, "usage.bad-distillation"),
        ("Tiny", "Wide", {"features": ("bodi=2",)}, "usage.unknown-layer"),
        ("Tiny", "Wide", {"features": ("body=22",)}, "usage.unknown-layer"),
        ("Tiny", "Wide", {"features": ("body=6",)}, "usage.bad-layer-pair"),
        ("Tiny", "Missing", {}, "task.class-missing"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    school: str, tmp_path: Path, student: str, teacher: str, change: dict, code: str
) -> None:
    with pytest.raises(EdgeError) as caught:
        distill(
            load_task(f"{school}:{student}"),
            f"{school}:{teacher}",
            settings=replace(QUICK, **change),
            checkpoint=tmp_path / "c",
        )
    assert caught.value.code == code
    assert not (tmp_path / "c").exists()


def test_an_unknown_layer_names_close_ones(school: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="Did you mean 'body'"):
        distill(
            load_task(f"{school}:Tiny"),
            f"{school}:Wide",
            settings=replace(QUICK, features=("bodi=2",)),
            checkpoint=tmp_path / "c",
        )


def test_training_that_yields_nothing_is_refused(write_task, school: str, tmp_path: Path) -> None:
    ref = write_task("def training(self, h, w, seed):\n    return iter(())")
    with pytest.raises(EdgeError, match=r"task\.no-data"):
        distill(load_task(ref), f"{school}:Wide", settings=QUICK, checkpoint=tmp_path / "c")


def test_a_teacher_that_only_guesses_raises_a_doubt(school: str, tmp_path: Path) -> None:
    task, choice = load_task(f"{school}:Wide"), replace(QUICK, epochs=1, alone=False)
    save_weights(train(load_task(f"{school}:Tiny"), epochs=6).module, tmp_path / "good.pt")
    for weights, expected in (("", 1), (f":{tmp_path / 'good.pt'}", 0)):
        doubts: list[str] = []
        path = tmp_path / f"c{expected}"
        teacher = f"{school}:Tiny{weights}"
        distill(task, teacher, settings=choice, checkpoint=path, warn=doubts.append)
        assert len(doubts) == expected
        assert all("the 33.3 % of always giving" in d for d in doubts)


def test_references_with_and_without_weights() -> None:
    assert split_reference("a/b.py:C") == ("a/b.py:C", None)
    assert split_reference("a/b.py:C:w.pt") == ("a/b.py:C", Path("w.pt"))


def test_layers_are_matched_by_size() -> None:
    def net(channels: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(channels, 2, 1)
        )

    found = choose_pairs(net(3).eval(), net(5).eval(), torch.zeros(1, 1, 8, 8), ())
    assert found == (Pair("1", "1"), Pair("3", "3"))


FLOATS = st.lists(st.floats(-20, 20, width=32), min_size=12, max_size=12)


@settings(max_examples=50, deadline=None)
@given(one=FLOATS, other=FLOATS, temperature=st.floats(0.5, 20))
def test_losses_are_least_where_both_agree(
    one: list[float], other: list[float], temperature: float
) -> None:
    student, teacher = (torch.tensor(v, dtype=torch.float64).reshape(3, 4) for v in (one, other))
    assert logit_loss(teacher, teacher, temperature).abs() < 1e-9
    assert logit_loss(student, teacher, temperature) >= -1e-9
    assert feature_loss(teacher, teacher) == 0
    masks = [tensor.reshape(1, 3, 2, 2) for tensor in (student, teacher)]
    assert mask_loss(*masks) >= mask_loss(masks[1], masks[1]) - 1e-9
    assert 0.0 <= mask_overlap(*masks) <= 1.0
    assert mask_overlap(masks[1], masks[1]) == 1.0


def test_logit_loss_is_the_textbook_divergence() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.0, 3.0, 1.0]])
    p, q = (torch.softmax(tensor / 2, 1) for tensor in (teacher, student))
    by_hand = float((p * (p / q).log()).sum()) * 4
    assert float(logit_loss(student, teacher, 2.0)) == pytest.approx(by_hand, rel=1e-5)
