"""A network that cleans speech, as the microphone's filter: sound in, sound out."""

from __future__ import annotations

import numpy as np

from edge_sdk.audio.enhance import Enhancer
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import EnhanceSpec
from edge_sdk.errors import ContractError
from edge_sdk.runtime.stream import StreamSession


class SpeechFilter:
    """A loaded network between microphone and listener.

    Args:
        session: see :func:`enhancer_of`; closed with this.
        spec: of the network.

    Raises:
        ContractError: as :func:`enhancer_of`.
    """

    def __init__(self, session: StreamSession, spec: EnhanceSpec) -> None:
        self._session, self._enhancer = session, enhancer_of(session, spec)
        self.lag_samples = spec.window_samples
        """Sound that must have been pushed after a sample until that comes out, at most."""

    def push(self, samples: Floats) -> Floats:
        """The cleaned samples that these complete; their positions stay.

        Raises:
            RuntimeUnavailableError: the inference failed.
        """
        return self._enhancer.push(samples)

    def reset(self) -> None:
        """The stream goes on somewhere else."""
        self._enhancer.reset()

    def close(self) -> None:
        """Free the network."""
        self._session.close()


def enhancer_of(session: StreamSession, spec: EnhanceSpec) -> Enhancer:
    """A filter that asks a loaded network.

    Args:
        session: takes features (1, 3, 1, bands) and gives factors (1, 2, 1, bands).
        spec: of the network.

    Raises:
        ContractError: ``contract.model-input``, ``contract.bad-features``.
    """
    taken = [(one.shape, one.layout) for one in session.inputs]
    given = [(one.shape, one.layout) for one in session.outputs]
    if [_channels_first(*one) for one in taken] != [(1, 3, 1, spec.bands)] or [
        _channels_first(*one) for one in given
    ] != [(1, 2, 1, spec.bands)]:
        raise ContractError(
            "model-input",
            f"The network takes {taken} and gives {given} besides its states; an enhancer takes "
            f"(1, 3, 1, {spec.bands}) and gives (1, 2, 1, {spec.bands}).",
            "Correct the task's enhancement (bands) and convert again.",
        )
    last = given[0][1] == "NHWC"

    def factors(features: Floats) -> Floats:
        (answer,) = session.step([features[None, :, None]])
        found: Floats = answer.reshape(spec.bands, 2).T if last else answer.reshape(2, spec.bands)
        return found.astype(np.float32)

    return Enhancer(spec, factors, session.reset)


def _channels_first(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return (shape[0], shape[3], *shape[1:3]) if layout == "NHWC" and len(shape) == 4 else shape
