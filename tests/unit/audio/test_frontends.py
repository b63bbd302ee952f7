"""Front ends of other projects: frames do not depend on how the sound was cut."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.frontends import Samples, front_end
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import ContractError, SourceError
from tests.unit.audio.test_features import noise

MICRO = FeatureSpec(kind="micro", window_samples=480, hop_samples=160, bands=40)
RAW = FeatureSpec(kind="samples", window_samples=80, hop_samples=80, bands=80)


def test_a_specification_gets_its_front_end() -> None:
    assert isinstance(front_end(FeatureSpec()), FrontEnd)
    assert isinstance(front_end(RAW), Samples)


@pytest.mark.parametrize("spec", [RAW, MICRO])
def test_how_the_sound_was_cut_does_not_matter(spec: FeatureSpec) -> None:
    if spec.kind == "micro":
        pytest.importorskip("pymicro_features", reason="needs pymicro-features")
    sound = noise(0.5, level=0.3)
    whole, parts = front_end(spec), front_end(spec)
    expected = whole.push(sound)
    found = [parts.push(part) for part in np.split(sound, [1, 90, 500, 501, 3000])]
    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert expected.shape[1] == spec.bands
    whole.reset()
    assert whole.push(sound).tobytes() == expected.tobytes()


def test_samples_are_left_as_they_are() -> None:
    sound = noise(0.1)
    assert front_end(RAW).push(sound).reshape(-1).tobytes() == sound.tobytes()


def test_features_that_cannot_be_are_refused() -> None:
    for spec in (
        FeatureSpec(kind="samples", window_samples=80, hop_samples=80, bands=40),
        FeatureSpec(kind="micro", bands=40),
    ):
        with pytest.raises(ContractError) as caught:
            front_end(spec)
        assert caught.value.slug == "bad-features"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymicro_features", None)
    with pytest.raises(SourceError) as caught:
        front_end(MICRO)
    assert "pip install pymicro-features" in caught.value.hint
