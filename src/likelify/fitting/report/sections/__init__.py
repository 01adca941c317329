"""The sections of a report, a file each: a function from the material to a section."""
