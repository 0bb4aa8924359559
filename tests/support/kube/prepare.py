"""Builds everything that the node tests need and that takes long. A second run is fast.

PYTHONPATH=tests python -m support.kube.prepare
"""

import argparse
import sys

from support.kube.binaries import prepared_binaries
from support.kube.errors import UnavailableError
from support.kube.images import PlatformImages, prepared_images
from support.kube.privileges import install_packages
from support.kube.progress import Stopwatch

STEPS = ("packages", "kubernetes", "images", "platform")


def main() -> int:
    parser = argparse.ArgumentParser(prog="support.kube.prepare", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"any of {', '.join(STEPS)}; default: all")
    steps = parser.parse_args().steps or STEPS
    if unknown := set(steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    say = Stopwatch()
    try:
        if "packages" in steps:
            install_packages(say=say)
        if "kubernetes" in steps:
            prepared_binaries(say=say)
        if "images" in steps:
            with prepared_images(say=say):
                pass
        if "platform" in steps:
            with prepared_images(sets=(PlatformImages(),), say=say):
                pass
    except UnavailableError as error:
        say(f"unavailable: {error}")
        return 1
    say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
