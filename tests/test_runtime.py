"""The two settings that make MindSpore fast on a CPU, wherever Python starts.

The doctor, who looks at them, is here too.
"""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from unet3d_tutorial import doctor
from unet3d_tutorial.cpu import layers, runtime

WHAT = "print(runtime.slow_kernels(), runtime.convolution_kernel(), runtime.launch_mode())"
CONVOLUTION = (
    "voxels = ms.Tensor(np.ones((1, 1, 4, 4, 4), np.float32));"
    "ms.nn.Conv3d(1, 1, 3, weight_init='ones')(voxels).asnumpy();"
)
PACKAGE = (
    "from unet3d_tutorial.cpu import runtime;"
    "from unet3d_tutorial.runs.device import setup; setup();"
)
SCRIPTS = {
    "package first": (PACKAGE + WHAT, {}),
    "MindSpore first": ("import mindspore; import mindspore.nn;" + PACKAGE + WHAT, {}),
    "child process": (
        "import subprocess, sys; import unet3d_tutorial.model;"
        "subprocess.run([sys.executable, '-c', "
        "'import mindspore; from unet3d_tutorial.cpu import runtime;" + WHAT + "'])",
        {},
    ),
    "spawned worker": (
        "import multiprocessing as mp\nfrom unet3d_tutorial.cpu.runtime import convolution_kernel\n"
        "if __name__ == '__main__':\n with mp.get_context('spawn').Pool(1) as pool:\n"
        "  print('False', pool.apply(convolution_kernel), 'at once')",
        {},
    ),
    "user's AVX": (
        PACKAGE + "import os; print(os.environ['ONEDNN_MAX_CPU_ISA'])",
        {"ONEDNN_MAX_CPU_ISA": "AVX"},
    ),
    "user's queue": (PACKAGE + WHAT, {"UNET3D_LAUNCH": "queue"}),
    "too late": (
        "import warnings, numpy as np, mindspore as ms;"
        + CONVOLUTION
        + "warnings.simplefilter('error', RuntimeWarning);"
        + PACKAGE,
        {},
    ),
}


CLEAN = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "UNET3D_LAUNCH")}


@pytest.fixture(scope="module")
def ran() -> dict[str, subprocess.CompletedProcess]:
    """Each script in a process of its own, as the first operation of a process settles oneDNN's
    kernels.
    """

    def run(script: str, extra: dict[str, str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", script], env=CLEAN | extra, capture_output=True, text=True
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(lambda name: run(*SCRIPTS[name]), SCRIPTS), strict=True))


@pytest.mark.parametrize(
    "name", ["package first", "MindSpore first", "child process", "spawned worker"]
)
def test_fast_kernels_and_launch_at_once(ran, name) -> None:
    assert ran[name].stdout.split() == ["False", "x64:gemm:jit", "at", "once"], ran[name].stderr


def test_in_a_notebook_where_mindspore_was_imported_first(monkeypatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "UNET3D_LAUNCH"):
        monkeypatch.delenv(name, raising=False)
    cells = [
        "import mindspore as ms\nfrom mindspore import nn, ops",
        "from unet3d_tutorial import ResidualUNet3D, accelerate",
        "network = accelerate(ResidualUNet3D(channels=(2, 3, 4, 5, 6)))",
        "from unet3d_tutorial.cpu import runtime\n" + WHAT,
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert notebook.cells[-1].outputs[0].text.split() == ["False", "x64:gemm:jit", "at", "once"]


def test_under_msrun(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = f"import mindspore\n{PACKAGE}\nmindspore.communication.init()\n{WHAT}\n"
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    start = Path(sys.executable).parent / "msrun"
    options = [
        "--worker_num=2",
        "--local_worker_num=2",
        f"--master_port={port}",
        f"--log_dir={tmp_path / 'log'}",
        "--join=True",
    ]
    done = subprocess.run(
        [str(start), *options, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=CLEAN | {"PATH": os.pathsep.join([str(start.parent), os.environ["PATH"]])},
    )
    logs = [
        path.read_text(encoding="utf-8") for path in sorted((tmp_path / "log").glob("worker_*.log"))
    ]
    assert done.returncode == 0 and len(logs) == 2, done.stdout + done.stderr
    assert all("False x64:gemm:jit at once" in log for log in logs), logs


def test_the_users_own_settings_win(ran) -> None:
    assert ran["user's AVX"].stdout.split() == ["AVX"]
    assert ran["user's queue"].stdout.split()[2:] == ["queue"]


def has_avx512() -> bool:
    return (
        "avx512f" in open("/proc/cpuinfo", encoding="utf-8").read()
        if os.path.exists("/proc/cpuinfo")
        else False
    )


@pytest.mark.skipif(not has_avx512(), reason="the slow kernels are those of AVX-512")
def test_too_late_is_said(ran) -> None:
    assert "RuntimeWarning: oneDNN has settled on its AVX-512 kernels" in ran["too late"].stderr
    assert ran["too late"].returncode != 0


def test_unknown_launch_setting_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("UNET3D_LAUNCH", "fast")
    with pytest.raises(ValueError, match="^UNET3D_LAUNCH: expected queue or nothing, found 'fast'"):
        runtime.launch_mode()


# ------------------------------------------------------------------------------------------- doctor


def test_doctor_finds_what_is_there_and_measures(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "STEP", (2, 1, 16, 16, 32))
    findings = {finding.name: finding for finding in doctor.examine(seconds=0.1)}
    assert findings["MindSpore"].found.startswith("2.10") and not findings["MindSpore"].remedy
    assert findings["convolution kernel"].found == "x64:gemm:jit"
    assert findings["convolutions"].found == doctor.CONVOLUTIONS[layers.kernels()]
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
    assert text.splitlines() == [
        "  good  yes",
        "! bad   no",
        "        -> mend it",
        "1 of 2 need attention",
    ]
    assert doctor.report([doctor.Finding("good", "yes")]).endswith("everything is as it should be")
