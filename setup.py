"""Puts the folders that lie beside the package in a checkout into the wheel: see `stackctl.shipped`."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithFolders(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ("compose", "procedures"):
            target = Path(self.build_lib, "stackctl", "_shipped", name)
            shutil.rmtree(
                target, ignore_errors=True
            )  # an earlier build's: a template that is gone stays gone
            shutil.copytree(HERE / name, target)
        # What bootstrap takes to another host, whether this is a checkout or not.
        target = Path(self.build_lib, "stackctl", "_shipped", "requirements")
        target.mkdir(exist_ok=True)
        shutil.copy(HERE / "requirements" / "stackctl.txt", target)


setup(cmdclass={"build_py": BuildWithFolders})
