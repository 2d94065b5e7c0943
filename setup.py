# SPDX-License-Identifier: Apache-2.0
"""Build file for machines without ROS 2: `pip install .` installs the library and `scrfd`.

With ROS 2 CMakeLists.txt builds the package. Everything is declared in setup.cfg.
"""

from setuptools import setup

setup()
