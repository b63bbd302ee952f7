"""Choosing a runtime: what is tried, and what is said about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import EdgeError, RuntimeUnavailableError
from edge_sdk.runtime.negotiate import available, open_engine
from edge_sdk.runtime.ort import open_ort, provider_times
from edge_sdk.runtime.packages import InstalledPackages
from edge_sdk.runtime.tensors import guess_layout
from tests.fakes.models import write_onnx, write_tflite
from tests.fakes.packages import FakePackages


def test_nothing_installed_names_every_install_command(tmp_path: Path) -> None:
    path = write_tflite(tmp_path / "m.tflite")
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(path, format="tflite", packages=FakePackages({}))
    error = caught.value
    assert error.code == "runtime.none-available"
    assert "litert is not installed (pip install 'edge-sdk[litert]')" in error.cause
    assert "tflite-runtime is not installed" in error.cause
    assert "onnxruntime" not in error.cause
    assert error.hint == "pip install 'edge-sdk[litert]'"


def test_onnxruntime_missing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'edge-sdk\[onnx\]'"):
        open_engine(write_onnx(tmp_path / "m.onnx"), format="onnx", packages=FakePackages({}))


@pytest.mark.parametrize("numpy", ["2.0.0", "2.4.6"])
def test_tflite_runtime_beside_numpy_2_is_rejected_before_it_is_imported(
    tmp_path: Path, numpy: str
) -> None:
    packages = FakePackages({"tflite-runtime": "2.14.0", "numpy": numpy})
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(write_tflite(tmp_path / "m.tflite"), format="tflite", packages=packages)
    assert f"tflite-runtime 2.14.0 needs numpy<2 and numpy {numpy} is installed" in (
        caught.value.cause
    )
    assert not packages.loaded


def test_tflite_runtime_is_used_where_it_is_all_there_is(tmp_path: Path) -> None:
    """The same interpreter interface under tflite-runtime's module name."""
    import ai_edge_litert.interpreter as interpreter

    packages = FakePackages(
        {"tflite-runtime": "2.14.0", "numpy": "1.26.4"},
        {"tflite_runtime.interpreter": interpreter},
    )
    engine = open_engine(write_tflite(tmp_path / "m.tflite"), format="tflite", packages=packages)
    assert engine.runtime == "tflite-runtime"


def test_a_ladders_litert_means_either_interpreter(tmp_path: Path) -> None:
    path = write_tflite(tmp_path / "m.tflite")
    assert open_engine(path, format="tflite", runtimes=["litert"]).runtime == "litert"
    with pytest.raises(RuntimeUnavailableError, match="tflite-runtime is not installed"):
        open_engine(path, format="tflite", runtimes=["tflite-runtime"])


def test_a_broken_install_is_named(tmp_path: Path) -> None:
    class Broken(FakePackages):
        def load(self, module: str):
            raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found")

    with pytest.raises(RuntimeUnavailableError, match="does not import: libstdc") as caught:
        open_engine(
            write_onnx(tmp_path / "m.onnx"), format="onnx", packages=Broken({"onnxruntime": "1.31"})
        )
    assert caught.value.code == "runtime.none-available"


def test_unknown_runtime_suggests(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(write_onnx(tmp_path / "m.onnx"), format="onnx", runtimes=["onnxruntim"])
    assert caught.value.code == "runtime.unknown-runtime"
    assert "'onnxruntime'" in caught.value.hint


def test_a_runtime_of_another_format_is_rejected_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime does not read tflite files"):
        open_engine(write_tflite(tmp_path / "m.tflite"), format="tflite", runtimes=["onnxruntime"])


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_threads_are_bounded(tmp_path: Path, threads: int) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(write_onnx(tmp_path / "m.onnx"), format="onnx", threads=threads)
    assert caught.value.code == "runtime.bad-threads"


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_missing_file_and_folder(tmp_path: Path, format: str) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RuntimeUnavailableError) as caught:
            open_engine(path, format=format)
        assert caught.value.code == "runtime.file-missing"


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\0" * 4096, b"\x18\0\0\0TFL3"])
def test_garbage_is_rejected(tmp_path: Path, format: str, content: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(path, format=format)
    assert caught.value.code == "runtime.model-rejected"
    assert "\n" not in caught.value.cause


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_of_the_other_format_is_rejected(tmp_path: Path, format: str) -> None:
    write = write_onnx if format == "tflite" else write_tflite
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_engine(write(tmp_path / "m"), format=format)
    assert caught.value.code == "runtime.model-rejected"


def test_every_truncation_of_a_model_is_refused_without_a_crash(tmp_path: Path) -> None:
    """In a process of its own: a native crash must fail this test, not end the suite."""
    models = {
        "tflite": write_tflite(tmp_path / "m.tflite"),
        "onnx": write_onnx(tmp_path / "m.onnx", layers=2),
    }
    code = """
import json, sys
from pathlib import Path
from edge_sdk.errors import EdgeError
from edge_sdk.runtime.negotiate import open_engine
cut = Path(sys.argv[1])
outcomes = {}
for format, path in json.loads(sys.argv[2]).items():
    data = Path(path).read_bytes()
    for share in range(0, 100, 4):
        cut.write_bytes(data[: len(data) * share // 100])
        try:
            open_engine(cut, format=format)
            outcome = "opened"
        except EdgeError as error:
            outcome = error.code
        outcomes.setdefault(outcome, []).append(f"{format} {share}")
print(json.dumps(outcomes))
"""
    paths = json.dumps({name: str(path) for name, path in models.items()})
    command = [sys.executable, "-c", code, str(tmp_path / "cut"), paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(json.loads(done.stdout)) == ["runtime.model-rejected"]


def test_units_are_chosen_by_what_ran_not_by_what_is_compiled_in(tmp_path: Path) -> None:
    """CUDA is asked for first and is not in this build: the CPU runs, and is reported."""
    import onnxruntime

    engine = open_engine(write_onnx(tmp_path / "m.onnx"), format="onnx")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert engine.unit == "cpu"
        with pytest.raises(RuntimeUnavailableError, match="this build of ONNX Runtime"):
            open_ort(tmp_path / "m.onnx", 1, InstalledPackages(), units=["cuda"])


def test_a_provider_that_is_listed_but_runs_nothing_is_rejected(tmp_path: Path) -> None:
    """ONNX Runtime lists a provider, takes it in a session, and runs every operator on the CPU."""
    import onnxruntime

    claims = SimpleNamespace(**vars(onnxruntime))
    claims.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    claims.InferenceSession = lambda path, options, providers: onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    packages = FakePackages({"onnxruntime": "1.31"}, {"onnxruntime": claims})
    path = write_onnx(tmp_path / "m.onnx", layers=3)
    engine = open_ort(path, 1, packages)
    assert engine.unit == "cpu"
    with pytest.raises(RuntimeUnavailableError, match=r"most of .* ran on CPUExecutionProvider"):
        open_ort(path, 1, packages, units=["cuda"])


def test_unknown_unit(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_ort(write_onnx(tmp_path / "m.onnx"), 1, InstalledPackages(), units=["quantum"])
    assert caught.value.code == "runtime.unknown-unit"


def test_provider_times_adds_up_kernels_only() -> None:
    events = [
        {"name": "a_kernel_time", "dur": 5, "args": {"provider": "CPU"}},
        {"name": "b_kernel_time", "dur": 7, "args": {"provider": "CUDA"}},
        {"name": "c_kernel_time", "dur": 1, "args": {"provider": "CPU"}},
        {"name": "b_fence_before", "dur": 99, "args": {"provider": "CUDA"}},
        {"name": "session", "dur": 500},
    ]
    assert provider_times(json.dumps(events).encode()) == {"CPU": 6, "CUDA": 7}


def test_available_reports_versions_or_reasons() -> None:
    found = available("tflite")
    assert found["litert"][0].isdigit()
    assert set(found) == {"litert", "tflite-runtime"}
    assert "not installed" in available("onnx", FakePackages({}))["onnxruntime"]


@pytest.mark.parametrize(
    ("shape", "default", "expected"),
    [
        ((1, 3, 224, 224), "NHWC", "NCHW"),
        ((1, 224, 224, 3), "NCHW", "NHWC"),
        ((1, 1, 28, 28), "NHWC", "NCHW"),
        ((1, 64, 7, 7), "NHWC", "NHWC"),
        ((1, 3, 3, 3), "NCHW", "NCHW"),
        ((1, 10), "NCHW", "NC"),
        ((10,), "NCHW", "other"),
        ((1, 2, 3, 4, 5), "NCHW", "other"),
    ],
)
def test_layout_guess(shape: tuple[int, ...], default: str, expected: str) -> None:
    assert guess_layout(shape, default) == expected


@given(data=st.binary(max_size=300), format=st.sampled_from(["tflite", "onnx"]))
@settings(max_examples=60, deadline=None)
def test_no_bytes_get_past_the_error_family(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, format: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m"
    path.write_bytes(data)
    try:
        open_engine(path, format=format)
    except EdgeError as error:
        assert error.family == "runtime"
