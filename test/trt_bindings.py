# SPDX-License-Identifier: Apache-2.0
"""The names in TensorRT's Python bindings, version by version, without TensorRT's libraries.

The bindings are packages of 1 MB, the libraries are gigabytes or not to be had. So each version is
imported with libraries in which every function returns 0, in a process of its own, which lists
the names and creates no object.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

# Names to their own names, where they are classes, else to None.
Names = dict[str, Optional["Names"]]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

# What the bindings call when they are loaded or used; the last four are in 8.6 only.
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)

LIST_NAMES = """
import importlib, json, sys

def names(owner):
    found = {}
    for name in dir(owner):
        value = getattr(owner, name, None)
        is_class = isinstance(value, type) and not name.startswith("_")
        found[name] = names(value) if is_class else None
    return found

sys.path.insert(0, sys.argv[1])
json.dump(names(importlib.import_module(sys.argv[2])), sys.stdout)
"""


@dataclass(frozen=True)
class Bindings:
    """One version of the bindings, as the Python registry has it for x86_64.

    Attributes:
        package: the one it comes in.
        version: of the package.
        wheels: SHA-256 of the wheels by the version of Python that they are for.
        libraries: which it is linked to.
        module: which the package installs.
    """

    package: str
    version: str
    wheels: dict[str, str]
    libraries: tuple[str, ...]
    module: str = "tensorrt_bindings"

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if 'rtx' in self.module else 'TensorRT'} {self.version}"

    @property
    def missing(self) -> str:
        """Why it cannot be imported here; empty if it can."""
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return "the wheels pinned here are for Linux on x86_64"
        return "" if PYTHON in self.wheels else f"{self} has no bindings for Python {PYTHON}"

    def names(self, cache: Path) -> Names:
        """All names in it.

        Args:
            cache: folder that keeps the package for the next time.
        """
        folder = cache / f"{self.package}-{self.version}-{PYTHON}"
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                self._install(Path(scratch) / "package")
                (Path(scratch) / "package").rename(folder)
        # -I -S: no package of this machine, the real libraries among them, gets in between.
        command = [sys.executable, "-I", "-S", "-c", LIST_NAMES, str(folder), self.module]
        names: Names = json.loads(run(command))
        return names

    def _install(self, folder: Path) -> None:
        requirements = folder.with_name("requirements.txt")
        requirements.write_text(
            f"{self.package}=={self.version} --hash=sha256:{self.wheels[PYTHON]}\n"
            "--only-binary=:all:\n"
        )
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        run([*pip, "--target", folder, "--require-hashes", "--requirement", requirements])
        source = folder.with_name("libraries.c")
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        # The bindings look for libraries in their own folder first, or after LD_LIBRARY_PATH.
        for library in self.libraries:
            run(["cc", "-shared", "-fPIC", source, "-o", folder / self.module / library])


def run(command: Sequence[str | Path]) -> str:
    """Run a command; gives its output. What it complains of is shown if it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


BINDINGS = (
    Bindings(
        "tensorrt-bindings",
        "8.6.1",
        {
            "3.10": "6f9d26d5d8f6b87d62048c5ef4bb33b179cdf944d1b28480458d8c27d1e65456",
            "3.11": "705cfab5c60f0bed7d939559d880165a761bd9ac0f4203004948a760eef99838",
        },
        ("libnvinfer.so.8", "libnvinfer_plugin.so.8", "libnvonnxparser.so.8", "libnvparsers.so.8"),
    ),
    Bindings(
        "tensorrt-cu12-bindings",
        "10.3.0",  # JetPack 6
        {
            "3.10": "1d6e4cf08ef1f54f6fd44a33cf6b253050af2fc6e9a1d92e40e1436a1d858eb0",
            "3.11": "59ace22d7f2ca1e9dcde2cb0cb5916912cb3cd5a9d72dd7852be0160d9b3a0ee",
            "3.12": "f5c2582aeaa7f5628d2c4d4148a701ebe97be78f7ff3b46a617f0ee0cb5460f2",
        },
        ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"),
    ),
    Bindings(
        "tensorrt-cu13-bindings",
        "10.13.3.9",  # JetPack 7
        {
            "3.10": "6cd47014553af9b48d19dddab3dd053c9b3cc9d4c9939a8f989566f0821067ff",
            "3.11": "f40c9e488af125b232fcca85ac4b21e090d7b1be55c3062eeaf48c2a9a9ed808",
            "3.12": "9e3adb281af85508518b90979d0bf3a1704a40c3165a99d5b27e2cfee72f1b14",
            "3.13": "c0530b410c4fa6086dd908d9390959c61c0437efd6d3ebc24cf563dcdd9f10f2",
        },
        ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"),
    ),
    Bindings(
        "tensorrt-cu13-bindings",
        "11.4.0.106",
        {
            "3.10": "1d17853da33a186c4d4d39995c1186bb59f643689aabac9c3e33ae5f0ba402f5",
            "3.11": "d072ac2a095e2be749fefc847adfb25d5ebe70303401df62ede8fe67a59f27fc",
            "3.12": "5fc7a6c412881f7212030893bd5531b1a0ff415c72c7678dfe4ead7a7765b38d",
            "3.13": "bac9a362c9189b5f5dd0444213913846e4b46003237834958e890eff57d86ed5",
            "3.14": "233f5f02af7940b7cf15a5b526fc16b203d93181473a58588937bf401ca1d293",
        },
        ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11"),
    ),
    Bindings(
        "tensorrt-rtx-cu13-bindings",
        "1.7.1.116",
        {
            "3.10": "f357cebfed83af6cbd1d3b172632cd9c6bb06a39e8296a8d3c11a9edd2fae357",
            "3.11": "6a4d2bf39a98b71238046b9a9dd22d0e6b146be90cd56ac09f1e068933e4e18d",
            "3.12": "52fb62cb86b922637848f5971b53153bf2e091c33948fa89efd215abaa52b044",
            "3.13": "f15cdb560cf2d926405789985509f5496e378ba457a7fb657592ce7f7311c0ff",
            "3.14": "675881105d3fa967cc4b3a1258d2bd29545de92e19a7058c0c8a17afa62290cd",
        },
        ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"),
        module="tensorrt_rtx_bindings",
    ),
)
