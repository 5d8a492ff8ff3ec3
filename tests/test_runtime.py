"""The two settings that make MindSpore fast on a CPU, wherever Python starts; and the doctor, who looks at them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from unet3d_tutorial import doctor, onednn, runtime

WHAT = "print(runtime.slow_kernels(), runtime.convolution_kernel(), runtime.launch_mode())"
CONVOLUTION = "ms.nn.Conv3d(1, 1, 3, weight_init='ones')(ms.Tensor(np.ones((1, 1, 4, 4, 4), np.float32))).asnumpy();"
PACKAGE = "from unet3d_tutorial import runtime; runtime.setup();"
SCRIPTS = {
    "package first": (PACKAGE + WHAT, {}),
    "MindSpore first": ("import mindspore; import mindspore.nn;" + PACKAGE + WHAT, {}),
    "child process": ("import subprocess, sys; import unet3d_tutorial; subprocess.run([sys.executable, '-c', "
                      "'import mindspore; from unet3d_tutorial import runtime;" + WHAT + "'])", {}),
    "user's AVX": (PACKAGE + "import os; print(os.environ['ONEDNN_MAX_CPU_ISA'])", {"ONEDNN_MAX_CPU_ISA": "AVX"}),
    "user's queue": (PACKAGE + WHAT, {"UNET3D_LAUNCH": "queue"}),
    "too late": ("import warnings, numpy as np, mindspore as ms;" + CONVOLUTION +
                 "warnings.simplefilter('error', RuntimeWarning);" + PACKAGE, {}),
}


@pytest.fixture(scope="module")
def ran() -> dict[str, subprocess.CompletedProcess]:
    """Each script in a process of its own, as the first operation of a process settles oneDNN's kernels."""
    clean = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "UNET3D_LAUNCH")}

    def run(script: str, extra: dict[str, str]) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", script], env=clean | extra, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(lambda name: run(*SCRIPTS[name]), SCRIPTS), strict=True))


@pytest.mark.parametrize("name", ["package first", "MindSpore first", "child process"])
def test_fast_kernels_and_launch_at_once(ran, name) -> None:
    assert ran[name].stdout.split() == ["False", "x64:gemm:jit", "at", "once"], ran[name].stderr


def test_the_users_own_settings_win(ran) -> None:
    assert ran["user's AVX"].stdout.split() == ["AVX"]
    assert ran["user's queue"].stdout.split()[2:] == ["queue"]


def has_avx512() -> bool:
    return "avx512f" in open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else False


@pytest.mark.skipif(not has_avx512(), reason="the slow kernels are those of AVX-512")
def test_too_late_is_said(ran) -> None:
    assert "RuntimeWarning: oneDNN has settled on its AVX-512 kernels" in ran["too late"].stderr
    assert ran["too late"].returncode != 0


def test_unknown_launch_setting_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("UNET3D_LAUNCH", "fast")
    with pytest.raises(ValueError, match="^UNET3D_LAUNCH: expected queue or nothing, found 'fast'"):
        runtime.launch_mode()


# ------------------------------------------------------------------------------------------------------------- doctor


def test_doctor_finds_what_is_there_and_measures(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "STEP", (2, 1, 16, 16, 32))
    findings = {finding.name: finding for finding in doctor.examine(seconds=0.1)}
    assert findings["MindSpore"].found.startswith("2.10") and not findings["MindSpore"].remedy
    assert findings["convolution kernel"].found == "x64:gemm:jit"
    assert findings["convolutions"].found == doctor._WHOSE[onednn.convolutions()]
    assert "s a step of 2x1x16x16x32" in findings["training speed"].found


def test_doctor_has_a_remedy_for_each_thing_that_is_wrong(monkeypatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert "environment.yml" in doctor._version("NumPy", "2.1.0", "1.26").remedy
    assert "environment.yml" in doctor._version("MindSpore", "2.1", "2.10").remedy
    assert "AVX512_CORE" in doctor._kernel("jit_uni_ncsp:conv+ref:any").remedy
    assert not doctor._kernel("x64:gemm:jit").remedy
    assert "UNET3D_LAUNCH" in doctor._launch("queue", cores=2).remedy
    assert doctor._speed(3.0, cores=2).remedy and not doctor._speed(0.5, cores=2).remedy


def test_report_names_the_remedy_and_counts() -> None:
    text = doctor.report([doctor.Finding("good", "yes"), doctor.Finding("bad", "no", "mend it")])
    assert text.splitlines() == ["  good  yes", "! bad   no", "        -> mend it", "1 of 2 need attention"]
    assert doctor.report([doctor.Finding("good", "yes")]).endswith("everything is as it should be")
