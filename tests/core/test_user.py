"""A user id without a name, as in containers: every command works."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, make_image

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"
NAMELESS = 51234


@pytest.fixture
def nameless(tmp_path):
    """A function that runs a command as a user id without a name, with a home that it cannot write to."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can run a command as another user, with setpriv")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o777 == 0o700 and "pytest" in str(parent):
            parent.chmod(0o711)

    def run(*command: str) -> subprocess.CompletedProcess:
        user = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
        options = {"capture_output": True, "text": True, "check": False, "cwd": tmp_path, "env": environment}
        return subprocess.run([*user, sys.executable, *command], **options)

    if run("-c", "import torch").returncode:
        pytest.skip("other users cannot read the environment")
    return run


def test_a_user_without_a_name_translates_and_exports(tmp_path, nameless):
    make_image(1, 40, 30).save(tmp_path / "a.png")
    assert nameless("-c", "import getpass; getpass.getuser()").returncode != 0, "this user has a name"
    translated = nameless("-m", "msgunet", "translate", str(GENERATOR), "a.png", "--out", "out")
    assert translated.returncode == 0, translated.stderr
    assert (tmp_path / "out" / "a.png").is_file()
    exported = nameless("-m", "msgunet", "export", str(GENERATOR), "--onnx", "a.onnx")
    assert exported.returncode == 0, exported.stderr
