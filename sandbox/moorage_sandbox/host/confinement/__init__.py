"""What confines the processes of a sandbox: bubblewrap, system call filter, kernel users, limits."""
