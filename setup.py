# SPDX-License-Identifier: Apache-2.0
"""Build file for machines without ROS: `pip install .` gives the library and `scrfd`.

On a robot CMakeLists.txt builds the package. Everything is declared in setup.cfg.
"""

from setuptools import setup

setup()
