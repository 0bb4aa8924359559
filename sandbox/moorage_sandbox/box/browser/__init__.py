"""The one Chromium of the box. Imported at its first use, so that the box starts faster."""
