"""`python -m moorage_sandbox.host` and `python -m moorage_sandbox.host doctor`."""

from moorage_sandbox.host.main import main

main()
