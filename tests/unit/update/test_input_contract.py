"""A release that this device cannot feed, or that means something else, is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.pipelines.shapes import check_feedable
from agent.update.input_contract import contract_of, difference
from edge_sdk.bundle.signing import sign
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import MANIFEST_TYPE
from edge_sdk.contracts.manifest import Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.contracts.update import Phase
from edge_sdk.errors import ContractError
from tests.fakes.listeners import make_listening_release
from tests.fakes.updating import RELEASE_KEY, Rig, TinyRelease, desired_bytes, tiny_release

V1, V2 = tiny_release("1"), tiny_release("2")
GRAY = Preprocess(color="gray", mean=(0.0,), std=(1.0,))
(SPEC,) = next(iter(V1.manifest.artifacts.values())).inputs


def signed(release: TinyRelease, **changes: Any) -> TinyRelease:
    """The release with its manifest changed, signed anew."""
    manifest = replace(release.manifest, **changes)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    return TinyRelease(manifest, envelope, release.blobs)


def with_task(release: TinyRelease, **changes: Any) -> TinyRelease:
    return signed(release, task=replace(release.manifest.task, **changes))


def with_artifacts(release: TinyRelease, only: int | None = None, **changes: Any) -> TinyRelease:
    """Every artifact changed, or only one of them."""
    artifacts = {
        digest: replace(artifact, **changes) if only in (None, index) else artifact
        for index, (digest, artifact) in enumerate(release.manifest.artifacts.items())
    }
    return signed(release, artifacts=artifacts)


def with_input(release: TinyRelease, **changes: Any) -> TinyRelease:
    return with_artifacts(release, inputs=(replace(SPEC, **changes),))


UNFEEDABLE = {
    "shape": (with_input(V2, shape=(1, 3, 8, 8)), "contract.model-input"),
    "rank": (with_input(V2, shape=(1, 64), layout="NC"), "contract.model-input"),
    "batch": (with_input(V2, shape=(4, 1, 8, 8)), "contract.model-input"),
    "layout": (with_input(V2, layout="other"), "contract.model-input"),
    "dtype": (with_input(V2, dtype="float64", scale=None), "contract.model-input"),
    "int8 without a scale": (with_input(V2, scale=None), "contract.model-input"),
    "a scale of nothing": (with_input(V2, scale=0.0), "contract.model-input"),
    "two inputs": (with_artifacts(V2, inputs=(SPEC, SPEC)), "contract.model-input"),
    "the last point only": (with_artifacts(V2, 1, inputs=(SPEC, SPEC)), "contract.model-input"),
    "colour": (
        with_task(V2, preprocess=Preprocess(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)),
        "contract.model-input",
    ),
    "means": (
        with_task(V2, preprocess=Preprocess(color="gray", mean=(0.0, 1.0), std=(1.0,))),
        "contract.model-input",
    ),
    "labels": (with_task(V2, labels=("0", "1", "2")), "contract.model-output"),
    "no labels": (with_task(V2, labels=()), "contract.model-output"),
    "two outputs": (
        with_artifacts(V2, outputs=V2.manifest.artifacts[next(iter(V2.blobs))].outputs * 2),
        "contract.model-output",
    ),
    "kind": (with_task(V2, kind="generic"), "contract.no-pipeline"),
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that serves version 1."""
    rig = Rig(tmp_path)
    rig.publish(V1)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    return rig


@pytest.mark.parametrize("part", UNFEEDABLE)
def test_what_cannot_be_fed_is_refused_before_it_is_fetched(rig: Rig, part: str) -> None:
    release, code = UNFEEDABLE[part]
    rig.publish(release)
    before, starts = rig.received, list(rig.host.starts)
    rig.want(desired_bytes(release, 2))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, code)
    assert rig.received - before == len(release.envelope)
    assert rig.host.starts == starts
    assert rig.version == "1"
    assert rig.updater.state.bad == (), "it may fit after an update of the agent"


CHANGED = {
    "labels": (with_task(V2, labels=("no", "yes")), "Its 2 labels are not the 2 of before."),
    "preprocessing": (
        with_task(V2, preprocess=replace(GRAY, mean=(127.0,))),
        "Its preprocessing is another one.",
    ),
    "both": (
        with_task(V2, labels=("no", "yes"), preprocess=replace(GRAY, resize="area")),
        "Its 2 labels are not the 2 of before and its preprocessing is another one.",
    ),
}


@pytest.mark.parametrize("part", CHANGED)
def test_another_contract_is_refused_unless_it_is_meant(rig: Rig, part: str) -> None:
    release, detail = CHANGED[part]
    rig.publish(release)
    rig.want(desired_bytes(release, 2))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, "contract.changed")
    assert status.detail == detail
    assert rig.version == "1"
    rig.want(desired_bytes(release, 3, new_contract=True))
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "2"
    rig.want(desired_bytes(V1, 4))  # it has served here before
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "1"


def test_size_and_precision_may_change(rig: Rig) -> None:
    finer = with_input(V2, shape=(1, 16, 16, 1), layout="NHWC", dtype="float32", scale=None)
    rig.publish(finer)
    rig.want(desired_bytes(finer, 2))
    assert rig.settle().phase is Phase.COMMITTED


def test_a_state_of_an_earlier_version_knows_no_contract_and_refuses_none(rig: Rig) -> None:
    path = rig.folder / "state.json"
    state = decode(path.read_bytes(), type(rig.updater.state), "state")
    slots = {name: replace(record, contract=None) for name, record in state.slots.items()}
    path.write_bytes(encode(replace(state, slots=slots)))
    rig.boot()
    release, _ = CHANGED["labels"]
    rig.publish(release)
    rig.want(desired_bytes(release, 2))
    assert rig.settle().phase is Phase.COMMITTED


TASKS = st.builds(
    TaskInfo,
    name=st.just("t"),
    kind=st.sampled_from(["classification", "generic"]),
    labels=st.lists(st.sampled_from("abc"), max_size=3).map(tuple),
    preprocess=st.builds(
        Preprocess,
        color=st.sampled_from(["gray", "rgb"]),
        mean=st.lists(st.floats(0, 255), max_size=3).map(tuple),
        std=st.lists(st.floats(0.1, 9), max_size=3).map(tuple),
    ),
    reference_accuracy=st.just(0.9),
)
SPECS = st.builds(
    TensorSpec,
    name=st.just("x"),
    dtype=st.sampled_from(["int8", "uint8", "float32", "int64", "bool"]),
    shape=st.lists(st.sampled_from([0, 1, 3, 8]), max_size=5).map(tuple),
    layout=st.sampled_from(["NCHW", "NHWC", "NC", "other"]),
    scale=st.sampled_from([None, 0.5, 0.0, float("nan")]),
)


@given(task=TASKS, inputs=st.lists(SPECS, max_size=2), outputs=st.lists(SPECS, max_size=2))
def test_any_artifact_fits_or_is_refused_with_a_code(
    task: TaskInfo, inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    first = next(iter(V1.manifest.artifacts.values()))
    artifact = replace(first, inputs=tuple(inputs), outputs=tuple(outputs))
    try:
        check_feedable(task, artifact)
    except ContractError as error:
        assert error.slug in {"no-pipeline", "model-input", "model-output"}
    else:
        assert len(inputs) == len(outputs) == 1
        assert outputs[0].shape == (1, len(task.labels))


def test_a_network_that_listens_fits_when_its_scores_are_its_labels(tmp_path: Path) -> None:
    manifest = make_listening_release(tmp_path / "listens").manifest
    (artifact,) = manifest.artifacts.values()
    assert manifest.task.sound is not None
    check_feedable(manifest.task, artifact)
    assert contract_of(manifest.task).label_count == 1
    two = replace(manifest.task, sound=replace(manifest.task.sound, labels=("loud", "soft")))
    for task, changed, slug in (
        (two, artifact, "model-output"),
        (manifest.task, replace(artifact, states=()), "model-input"),
    ):
        with pytest.raises(ContractError) as caught:
            check_feedable(task, changed)
        assert caught.value.slug == slug
    assert "labels" in difference(contract_of(two), contract_of(manifest.task))


@given(old=TASKS, new=TASKS)
def test_contracts_differ_exactly_where_tasks_do(old: TaskInfo, new: TaskInfo) -> None:
    said = difference(contract_of(new), contract_of(old))
    assert ("labels" in said) == (new.labels != old.labels)
    assert ("preprocessing" in said) == (new.preprocess != old.preprocess)
