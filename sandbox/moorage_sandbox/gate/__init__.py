"""The one door of a sandbox: checks every token, keeps binding and ledger, serves tools, files and VNC."""
