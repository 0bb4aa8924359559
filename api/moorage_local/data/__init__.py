"""What `moorage up` keeps on the disk: its directory, secrets, ports and logs."""
