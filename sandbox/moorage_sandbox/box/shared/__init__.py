"""What every part of the box uses: errors, deadlines, paths and child processes."""
