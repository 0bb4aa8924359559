"""`python -m moorage_sandbox.gate`."""

from moorage_sandbox.gate.main import main

main()
